"""What discovery found. In: nothing. Out: values made by ``discover`` and used by plan, report and inspect."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Flow(Enum):
    """How an instruction passes control on."""

    NEXT = "next"  # falls through only
    JUMP = "jump"  # direct, unconditional
    BRANCH = "branch"  # direct, conditional: jcc, loop*, jrcxz
    CALL = "call"  # direct call
    INDIRECT_JUMP = "indirect-jump"
    INDIRECT_CALL = "indirect-call"
    RETURN = "return"
    STOP = "stop"  # ud2, hlt, int3: does not fall through
    SYSCALL = "syscall"  # syscall, sysenter, int 0x80: falls through


class Insn(NamedTuple):
    """One decoded instruction. ``target`` is the vaddr of a direct branch or call, else None."""

    vaddr: int
    data: bytes
    flow: Flow
    target: int | None

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def end(self) -> int:
        return self.vaddr + len(self.data)


class CandidateKind(Enum):
    SYSCALL = "syscall"  # 0f 05
    INT80 = "int80"  # cd 80: i386 numbers, never mixed with the above
    SYSENTER = "sysenter"  # 0f 34
    VSYSCALL = "vsyscall"  # mov of an address in the vsyscall page: a call that the kernel makes in a page fault


class Verdict(Enum):
    SITE = "site"
    NON_CODE = "non-code"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A place where the bytes of a system call instruction stand (or VSYSCALL's), and what was proved of it.

    ``evidence`` is the chain of reasons, root first: ("symbol getpid", "linear from 0x401000", ...).
    ``inside`` is the vaddr of the instruction or datum that contains it, for NON_CODE.
    """

    vaddr: int
    kind: CandidateKind
    verdict: Verdict
    evidence: tuple[str, ...]
    inside: int | None = None
    function: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A proved system call instruction with what planning needs to know of its surroundings.

    ``before``: the instructions that run straight down to the site, in address order and contiguous, the last one
    ending at ``vaddr``; reaching back up to ``REACH_BYTES``, across joins (a join is a boundary in ``entries``), but
    never across an instruction that does not fall through. ``after``: contiguous from vaddr+2, likewise; its last
    instruction may be one that does not fall through. ``entries``: every vaddr within [before[0].vaddr, after end)
    that some known direct branch, call, jump table, relocation, symbol, FDE start, landing pad, code pointer in data,
    or address-taking instruction refers to. ``branches``: the direct branches (anywhere known) whose target
    lies in that range. ``encodings``: vaddrs in that range to which bytes anywhere would branch if an instruction
    started there, which nobody proved or excluded: hints, not entries. ``numbers``: the possible system call numbers,
    empty when not known; ``wrapper`` where the number is the function's own argument.
    """

    vaddr: int
    before: tuple[Insn, ...]
    after: tuple[Insn, ...]
    entries: frozenset[int]
    branches: tuple[Insn, ...]
    numbers: tuple[int, ...]
    wrapper: bool
    function: str | None
    function_start: int | None
    function_end: int | None
    encodings: frozenset[int] = frozenset()
    cfg_complete: bool  # every indirect jump of the function resolved, no undecodable byte on a path

    @property
    def end(self) -> int:
        return self.vaddr + 2

    @property
    def insn(self) -> Insn:
        """The system call instruction itself."""
        return Insn(self.vaddr, b"\x0f\x05", Flow.SYSCALL, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrapperCalls:
    """What the callers of a wrapper ask for: of the one with the site ``site``, or (None) of an imported ``syscall``.

    ``complete``: every possible caller is known and passes a known number; else there may be more.
    """

    name: str | None
    site: int | None
    numbers: tuple[int, ...]
    callers: int
    complete: bool


REACH_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Every candidate with its verdict; ``sites`` are the 64-bit ``syscall`` sites in address order.

    Invariant: candidates = sites + non-code + unknown + sites of the other kinds, keyed by vaddr.
    ``padding``: (start, end) runs proved unreachable (alignment nops, int3) that may hold jump islands.
    ``undecodable``: addresses on a path through a function with a candidate where no known instruction starts; not
    those to which only a guess at a jump table's length leads.
    ``gs_uses``: proved instructions that read or set gs, of which the program has one of its own then.
    ``functions_decoded``/``bytes_decoded``: what discovery had to decode, for the report.
    """

    candidates: tuple[Candidate, ...]
    sites: tuple[Site, ...]
    padding: tuple[tuple[int, int], ...]
    undecodable: tuple[int, ...] = ()
    gs_uses: tuple[int, ...] = ()
    function_count: int
    functions_decoded: int
    bytes_decoded: int
    root_sources: tuple[str, ...]  # "fde", "symtab", "pclntab", "sweep" ...: where function starts came from
