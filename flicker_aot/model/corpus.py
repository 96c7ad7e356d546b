"""A corpus: contents, where they were found, what was passed over. In: nothing. Out: values for corpus/ and report/.

A file's contents are examined once, whatever the number of places where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .options import Role
from .tree import Kind, Patched, count_patched


class Outcome(Enum):
    """What a rewriting of a file comes to."""

    VERIFIED = "verified"  # rewritten in memory, and the verifier found nothing
    NOTHING = "nothing to hook"  # no site: such a file is left as it is
    REFUSED = "refused"  # it cannot be rewritten, and ``reason`` says why
    FAILED = "failed"  # our fault: a failed verification, an error of ours, a process that ended


class SiteFact(NamedTuple):
    """One system call site; ``numbers``: the calls that it can make, empty where not known."""

    vaddr: int
    tactic: str
    soundness: str
    numbers: tuple[int, ...]


class Loose(NamedTuple):
    """A candidate that is not hooked: its place and kind ("syscall", "int80", "sysenter", "vsyscall")."""

    vaddr: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult:
    """What was found in contents. Invariant: candidates = sites + non_code + unknown + other_kinds.

    Where ``outcome`` is REFUSED or FAILED nothing of the code is known. ``exit_code``: as ``rewrite`` would end.
    ``peak_memory_bytes``: of the process that did it, while it did.
    """

    sha256: str
    size_bytes: int
    kind: Kind
    outcome: Outcome
    role: Role | None = None
    language: str = "unknown"
    compiler: str = "unknown"
    reason: str = ""
    exit_code: int = 0
    candidates: int = 0
    non_code: int = 0
    sites: tuple[SiteFact, ...] = ()
    unknown: tuple[Loose, ...] = ()
    other_kinds: tuple[Loose, ...] = ()
    gs_uses: int = 0
    growth_bytes: int = 0
    stages: tuple[tuple[str, float], ...] = ()  # name, seconds
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    @property
    def patched(self) -> tuple[Patched, ...]:
        return count_patched(Patched(s.tactic, s.soundness, 1) for s in self.sites)

    @property
    def numbers_known(self) -> int:
        return sum(bool(s.numbers) for s in self.sites)

    def count(self, *, tactic: str | None = None, soundness: str | None = None) -> int:
        """Sites of a tactic and of a soundness class; None for any."""
        return sum(tactic in (None, s.tactic) and soundness in (None, s.soundness) for s in self.sites)

    @property
    def unhooked(self) -> int:
        """System calls that the rewritten file may make past its hook."""
        return len(self.unknown) + len(self.other_kinds) + self.count(tactic="keep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What a file came in: ``kind`` is "deb", "rpm" or "image"."""

    kind: str
    name: str
    version: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A place where contents were found. ``path``: as the user would write it, members of archives behind ``//``.

    ``member``: the path inside of ``package``.
    """

    path: str
    sha256: str
    size_bytes: int
    package: Package | None = None
    member: str = ""

    @property
    def identity(self) -> str:
        """What stays the same from one version of a package to the next."""
        return self.path if self.package is None else f"{self.package.kind}:{self.package.name}:{self.member}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Something that was not examined. ``is_error``: it should have been, and could not be."""

    path: str
    reason: str
    is_error: bool


class FoundFile(NamedTuple):
    """One line of a report. ``is_first``: of the places with these contents."""

    name: Name
    result: FileResult
    is_first: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """A run as a whole. ``looked_at``: regular files and members; ``examined``: not in the cache, ``known``: in it."""

    tool_version: str
    paths: tuple[str, ...]
    looked_at: int
    archives: int
    examined: int
    known: int
    seconds: float
    cpu_seconds: float
    jobs: int
    peak_memory_bytes: int  # of the largest process
    engine: str


class Verdict(Enum):
    """What the runs of a command, as it is and rewritten, say."""

    SAME = "same"
    DIFFERENT = "different"
    UNSTABLE = "unstable"  # the original itself does something else each time: nothing is proved
    REFUSED = "refused"  # it cannot be rewritten alone
    MISSING = "missing"
    FAILED = "failed"  # the original cannot be run, or the tracer cannot trace


class EscapeSeen(NamedTuple):
    """A system call instruction of a rewritten program's process that was reached past its hook. ``mapping``: the file,
    or what /proc/PID/maps calls it; ``offset``: in that file; ``is_known``: the report lists it as unknown."""

    mapping: str
    offset: int
    number: int
    times: int
    is_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A smoke command, run natively and rewritten. ``calls``: system calls that were seen of the rewritten program."""

    name: str
    path: str
    args: tuple[str, ...]
    verdict: Verdict
    detail: str = ""
    calls: int = 0
    escapes: tuple[EscapeSeen, ...] = ()
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Nothing speaks against the rewritten program."""
        return self.verdict not in (Verdict.DIFFERENT, Verdict.FAILED) and all(e.is_known for e in self.escapes)
