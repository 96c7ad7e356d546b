"""The set of system calls of one or more files. In: ``Image``, ``Code`` and ``WrapperCalls`` of each. Out: a
``SyscallSet``, as text, as JSON and as an OCI seccomp profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..model.code import CandidateKind, Code, Verdict, WrapperCalls
from ..model.image import Image
from ..syscalls import NAME_OF, name_of

SCHEMA: Final = "flicker-aot/syscalls/1"
_SHOWN: Final = 3

# Made for every program, by others than its own sites: the container runtime starts it after the filter is there, the
# kernel restarts what a signal interrupted, the vDSO asks the kernel where it has no answer.
_ALWAYS: Final = frozenset(
    ("execve", "restart_syscall", "clock_gettime", "clock_getres", "gettimeofday", "time", "getcpu")
)
_ENOSYS: Final = 38  # programs fall back to older calls at this error, unlike EPERM


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCalls:
    """What was found in one file. ``numbers``: of sites and of wrappers' callers; ``gaps``: why there may be more."""

    path: str
    site_count: int
    known_count: int
    numbers: frozenset[int]
    wrappers: tuple[WrapperCalls, ...]
    gaps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallSet:
    """The files in the order given. ``gaps``: why there may be more calls, of the whole."""

    tool_version: str
    files: tuple[FileCalls, ...]
    gaps: tuple[str, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(sorted(frozenset[int]().union(*(file.numbers for file in self.files))))

    @property
    def is_complete(self) -> bool:
        return not self.gaps and not any(file.gaps for file in self.files)


def make_file_calls(image: Image, code: Code, wrappers: Sequence[WrapperCalls]) -> FileCalls:
    """The calls of one file, and what is not known of them."""
    by_site = {w.site: w for w in wrappers}
    numbers = {n for s in code.sites for n in s.numbers} | {n for w in wrappers for n in w.numbers}
    unknown = [s.vaddr for s in code.sites if not s.numbers and s.vaddr not in by_site]
    open_wrappers = [w for w in wrappers if not w.complete]
    undecided = [c.vaddr for c in code.candidates if c.verdict is Verdict.UNKNOWN]
    others = [c for c in code.candidates if c.verdict is Verdict.SITE]
    old = [c.vaddr for c in others if c.kind in (CandidateKind.INT80, CandidateKind.SYSENTER)]
    pages = [c.vaddr for c in others if c.kind is CandidateKind.VSYSCALL]
    gaps = []
    if unknown:
        gaps.append(f"the number is not known at {_listed(unknown)}")
    gaps += [f"{_wrapper(w)}: not all callers are known, or what they ask for" for w in open_wrappers]
    if undecided:
        gaps.append(f"neither proved code nor data: {_listed(undecided)}")
    if old:
        gaps.append(f"i386 system calls, whose numbers are others: {_listed(old)}")
    if pages:
        gaps.append(f"calls of the vsyscall page (gettimeofday, time, getcpu): {_listed(pages)}")
    return FileCalls(
        path=str(image.path),
        site_count=len(code.sites),
        known_count=sum(bool(s.numbers) for s in code.sites),
        numbers=frozenset(numbers),
        wrappers=tuple(wrappers),
        gaps=tuple(gaps),
    )


def _wrapper(wrapper: WrapperCalls) -> str:
    name = wrapper.name or "a wrapper"
    return f"{name} (imported)" if wrapper.site is None else f"{name} at {wrapper.site:#x}"


def _listed(places: Sequence[int]) -> str:
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return ", ".join(f"{place:#x}" for place in places[:_SHOWN]) + more


def names(found: SyscallSet) -> Iterator[str]:
    """The names in the order of their numbers."""
    return (name_of(number) for number in found.numbers)


def warnings(found: SyscallSet) -> Iterator[str]:
    """One line for each reason why there may be more calls."""
    yield from found.gaps
    for file in found.files:
        yield from (f"{file.path}: {gap}" for gap in file.gaps)


def to_json(found: SyscallSet) -> str:
    """One JSON object, keys in a fixed order, with a final newline. Addresses are hexadecimal text."""
    document = {
        "schema": SCHEMA,
        "tool_version": found.tool_version,
        "complete": found.is_complete,
        "gaps": list(found.gaps),
        "syscalls": [_call(number) for number in found.numbers],
        "files": [_file(file) for file in found.files],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _call(number: int) -> dict[str, Any]:
    return {"number": number, "name": name_of(number)}


def _file(file: FileCalls) -> dict[str, Any]:
    return {
        "path": file.path,
        "sites": file.site_count,
        "numbers_known": file.known_count,
        "syscalls": [_call(number) for number in sorted(file.numbers)],
        "wrappers": [
            {
                "name": w.name,
                "site": None if w.site is None else hex(w.site),
                "callers": w.callers,
                "complete": w.complete,
                "syscalls": [_call(number) for number in w.numbers],
            }
            for w in file.wrappers
        ],
        "gaps": list(file.gaps),
    }


def to_seccomp(found: SyscallSet) -> str:
    """The ``linux.seccomp`` object of the OCI runtime specification (config-linux.md), as container engines read it.

    Allowed is what was found, what the kernel and the vDSO add, and what starts the program; all else fails by ENOSYS.
    Numbers without a name are left out: the format has names only.
    """
    allowed = {NAME_OF[number] for number in found.numbers if number in NAME_OF} | _ALWAYS
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"}],
    }
    return json.dumps(profile, indent=1) + "\n"
