"""Files of a tree, and what became of them. In: nothing. Out: values that tree/, rootfs/ and report/ share.

Paths are relative to the tree's root, "" the root itself; bytes that are no UTF-8 are surrogate escapes (os.fsdecode).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .options import Role


class Kind(Enum):
    """What a path is. Files that are no ELF files for this machine to run are OTHER."""

    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    DEVICE = "device"
    OTHER = "file"
    STATIC = "static program"
    PROGRAM = "dynamic program"
    LIBRARY = "library"
    OBJECT = "object"  # ET_REL: code for a linker, or for the kernel
    FOREIGN = "foreign"  # an ELF file that cannot be rewritten: another machine, damaged, already rewritten

    @property
    def is_rewritable(self) -> bool:
        return self in (Kind.STATIC, Kind.PROGRAM, Kind.LIBRARY)

    @property
    def is_elf(self) -> bool:
        return self.is_rewritable or self in (Kind.OBJECT, Kind.FOREIGN)


class Action(Enum):
    REWRITTEN = "rewritten"
    COPIED = "copied"
    LINKED = "linked"  # another name of a file that comes earlier: ``FileRecord.link``
    MADE = "made"  # directories, symbolic links, special files
    SKIPPED = "skipped"  # not there, and a problem says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a file's headers say. ``refusal``: why an ELF file is FOREIGN or OBJECT; ``interpreter``: PT_INTERP."""

    kind: Kind
    interpreter: str | None = None
    soname: str | None = None
    build_id: str | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A path as it was found: lstat's fields that matter. ``target``: of a symbolic link. Times in ns."""

    path: str
    type: int  # stat.S_IFMT of the mode
    mode: int  # permission bits, setuid, setgid, sticky
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    dev: int
    ino: int
    nlink: int
    rdev: int
    target: str | None = None


class Patched(NamedTuple):
    """How many system call sites were patched by one tactic, in one soundness class (docs/report-schema.md)."""

    tactic: str
    soundness: str
    sites: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """System call sites of files, by tactic and class. ``unknown``: candidates that are proved neither way."""

    patched: tuple[Patched, ...] = ()
    unknown: int = 0
    other_kinds: int = 0

    @property
    def total(self) -> int:
        return sum(p.sites for p in self.patched)

    def __add__(self, other: Sites) -> Sites:
        return Sites(
            patched=count_patched([*self.patched, *other.patched]),
            unknown=self.unknown + other.unknown,
            other_kinds=self.other_kinds + other.other_kinds,
        )


def count_patched(parts: Iterable[Patched]) -> tuple[Patched, ...]:
    """One element for each tactic and class, the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    for part in parts:
        counts[part.tactic, part.soundness] += part.sites
    return tuple(Patched(*key, count) for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Escape:
    """System calls that nothing hooks. ``vaddr``: of one instruction; None for the whole file."""

    reason: str
    vaddr: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What became of one path: the manifest's element (docs/manifest-schema.md).

    ``key`` stands for everything that the output depends on besides the input; "" where it depends on nothing else.
    ``output_bytes`` and ``hole_bytes`` of a rewritten file: the second ones are sparse. ``dropped``: attributes that
    were not kept on purpose.
    """

    entry: Entry
    facts: Facts
    action: Action
    role: Role | None = None
    sha256: str | None = None
    key: str = ""
    link: str | None = None
    output_bytes: int = 0
    hole_bytes: int = 0
    sites: Sites = Sites()
    escapes: tuple[Escape, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return self.entry.path

    @property
    def growth_bytes(self) -> int:
        return self.output_bytes - self.hole_bytes - self.entry.size if self.action is Action.REWRITTEN else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that went wrong with one path and did not stop the run. ``exit_code`` as in errors.py; 0: a warning."""

    path: str
    message: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeReport:
    """A run over a tree. ``unchanged``: records that were right already; ``removed``: paths that vanished from SRC."""

    source: str
    destination: str
    tool_version: str
    tool: str
    records: tuple[FileRecord, ...]
    unchanged: int
    removed: tuple[str, ...]
    problems: tuple[Problem, ...]
    seconds: float
    jobs: int
    peak_memory_bytes: int
    is_written: bool  # False: --strict or --on-refusal fail said no, DST is as it was

    @property
    def sites(self) -> Sites:
        return sum((r.sites for r in self.records if r.action is not Action.LINKED), Sites())

    def rewritten(self, role: Role) -> tuple[FileRecord, ...]:
        return tuple(r for r in self.records if r.action is Action.REWRITTEN and r.role is role)

    @property
    def escapes(self) -> tuple[tuple[str, Escape], ...]:
        return tuple((r.path, e) for r in self.records for e in r.escapes)

    @property
    def growth_bytes(self) -> int:
        return sum(r.growth_bytes for r in self.records)

    @property
    def input_bytes(self) -> int:
        return sum(r.entry.size for r in _files(self.records))

    @property
    def exit_code(self) -> int:
        """The worst of the problems': our bug, then a failed verification, then a file that was not done."""
        return max((p.exit_code for p in self.problems), default=0) if self.is_written else 1


def _files(records: Iterable[FileRecord]) -> Iterable[FileRecord]:
    return (r for r in records if r.action in (Action.REWRITTEN, Action.COPIED))
