"""What will be done at each site. In: nothing. Out: values made by ``plan`` and used by layout, emit and report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .code import Insn, Site


class Tactic(Enum):
    """The rungs of the ladder, in the order in which they are tried."""

    WINDOW = "window"  # jmp rel32 over displaced instructions
    SHORT = "short"  # jmp rel8 to a hole in padding, which holds the jmp rel32
    SUCCESSOR = "successor"  # jmp rel8 to a hole in what follows the site, whose instructions are evicted
    NEIGHBOUR = "neighbour"  # the same with other instructions near the site
    TRAP = "trap"  # ud2 in place of the site, served by the SIGILL handler
    KEEP = "keep"  # left as it is (--on-refusal keep, --only/--except)


class SoundnessClass(Enum):
    AGNOSTIC = "agnostic"  # sound whatever the control flow: no old boundary on bytes 1-4 of the jump
    CLOSED = "closed"  # an old boundary on bytes 1-4; no bytes of the file that could lead there do (``WayKind``)
    CFG = "cfg-dependent"  # such bytes exist; the CFG says that they are no instruction or address
    TRAP = "trap"
    NONE = "none"  # kept


class WayKind(Enum):
    """What may lead to an address, whatever a disassembler says; each is looked for at every byte offset."""

    REL8 = "rel8"  # opcode and displacement of jmp, jcc, loop, jrcxz in an executable segment
    REL32 = "rel32"  # four bytes in an executable segment that, as the end of an instruction, refer to it: branch, lea
    WORD = "word"  # the address itself, anywhere in the file: pointer, addend, symbol; four bytes of it in ET_EXEC
    RELOCATION = "relocation"  # symbol + addend


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Bytes that would lead to ``target`` if they were what ``kind`` says; ``place``: vaddr, for WORD file offset."""

    target: int
    kind: WayKind
    place: int


class FillKind(Enum):
    JUMP32 = "jmp rel32"  # an old instruction start with 5 or more bytes left leads to its copy
    UD2 = "ud2"  # 0f 0b, two bytes: the trap table maps it
    TRAP1 = "trap byte"  # 06, one byte that raises #UD in 64-bit mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """What stands at an old instruction start in a window, after the jump; it leads to the copy of that instruction."""

    vaddr: int
    kind: FillKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Retarget:
    """A direct near branch from elsewhere into a window; its displacement is made to point at the target's copy."""

    branch: Insn
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Room for a jmp rel32 at ``vaddr``, in reach of a site's jmp rel8.

    [start, end): the jump alone, in padding; or the run of evicted instructions that it lies in.
    """

    vaddr: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One site's patch. For WINDOW: bytes [start, end) are owned: a jmp rel32 at ``start``, ``fills`` after it.

    ``before``/``after`` are the displaced instructions around the site (address order); with them the window is
    contiguous: start = first displaced instruction or the site; end = last one's end. TRAP owns the site's two bytes.
    SHORT, SUCCESSOR and NEIGHBOUR own these, a jmp rel8, and their ``hole``'s run. Of the latter two it has a jmp rel32
    to the copies of ``evicted``, the instructions of the run, then the hole; none starts behind these two.
    ``hidden``: the old boundaries that a jmp rel32 covers (in padding all of its bytes: any may be one); ``ways``: what
    was found to lead to them, none if CLOSED.
    """

    site: Site
    tactic: Tactic
    soundness: SoundnessClass
    start: int
    end: int
    before: tuple[Insn, ...]
    after: tuple[Insn, ...]
    fills: tuple[Fill, ...]
    retargets: tuple[Retarget, ...]
    hole: Hole | None = None
    evicted: tuple[Insn, ...] = ()
    hidden: tuple[int, ...] = ()
    ways: tuple[Way, ...] = ()
    reason: str  # why this rung: each earlier one's refusal, "" for the first

    @property
    def owned(self) -> tuple[tuple[int, int], ...]:
        """[start, end) of the input's bytes that change, where anything does."""
        if self.hole is None:
            return ((self.start, self.end),)
        return (self.start, self.end), (self.hole.start, self.hole.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A patch for every site, in address order; windows never overlap.

    ``debug_state``: where an interpreter in a bundle gets a jump to the runtime, for debuggers; five bytes.
    ``loader_opens``: calls of ``open`` that get a flag, of a C library that is an interpreter in a bundle.
    """

    patches: tuple[Patch, ...]
    debug_state: int | None = None
    loader_opens: tuple[Insn, ...] = ()
