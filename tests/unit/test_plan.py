"""Which window each shape of site gets, and why; and that no choice of windows is ever wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from flicker_aot.errors import PolicyError
from flicker_aot.model.code import Code, Site
from flicker_aot.model.image import PF_R, PT_LOAD, SHT_PROGBITS, Image, Section, Segment
from flicker_aot.model.options import OnRefusal, Options
from flicker_aot.model.plan import FillKind, Patch, SoundnessClass, Tactic
from flicker_aot.plan import make_plan
from flicker_aot.plan.cover import fills_at
from flicker_aot.plan.keep import ALWAYS_HOOKED

from .snippets import TEXT, assemble, code_of
from .ways_by_hand import all_ways

AGNOSTIC, CLOSED, CFG = SoundnessClass.AGNOSTIC, SoundnessClass.CLOSED, SoundnessClass.CFG


def plan(text: str, options: Options | None = None, *, cfg_complete: bool = True) -> tuple[Patch, ...]:
    image, code = code_of(text, cfg_complete=cfg_complete)
    return make_plan(image, code, options or Options()).patches


def only(text: str, *, cfg_complete: bool = True) -> Patch:
    (patch,) = plan(text, cfg_complete=cfg_complete)
    return patch


def shape(patch: Patch) -> tuple[int, int, int]:
    """Window start from the site, its size, and how many instructions after the site it displaces."""
    return patch.start - patch.site.vaddr, patch.end - patch.start, len(patch.after)


@pytest.mark.parametrize(
    ("text", "wanted", "fills"),
    [
        # The shape of 81 % of glibc's sites: the jump takes the mov, the site becomes ud2.
        ("nop; mov $39, %eax; syscall; ret", (-5, 7, 0), [(0, FillKind.UD2)]),
        ("nop; mov $39, %rax; syscall; ret", (-7, 9, 0), [(0, FillKind.UD2)]),
        ("mov $39, %eax; nop; mov %rdi, %rsi; syscall; ret", (-9, 11, 0), None),
        ("lea 8(%rdi,%rsi,4), %rdx; mov 64(%rip), %eax; syscall; ret", (-6, 8, 0), None),
    ],
)
def test_agnostic(text: str, wanted: tuple[int, int, int], fills: list[tuple[int, FillKind]] | None) -> None:
    """The nearest instruction of at least five bytes starts the window, and nothing after the site moves."""
    patch = only(text)
    assert (patch.soundness, shape(patch)) == (AGNOSTIC, wanted)
    assert patch.reason == ""
    if fills is not None:
        assert [(f.vaddr - patch.site.vaddr, f.kind) for f in patch.fills] == fills


def test_fills_that_trap() -> None:
    """Where less than five bytes are left: ud2 where two are, else the one-byte trap; each at an old start."""
    patch = only("mov $39, %eax; nop; syscall; mov %eax, %edx; ret")
    assert shape(patch) == (-6, 8, 0)
    assert [(f.vaddr - patch.site.vaddr, f.kind) for f in patch.fills] == [(-1, FillKind.TRAP1), (0, FillKind.UD2)]


def test_room_decides_the_fill() -> None:
    """Five bytes before the next old start hold a jump, two hold ud2, one holds the trap byte."""
    kinds = [(f.vaddr, f.kind) for f in fills_at((10, 15, 16, 18, 22), 29)]
    jump, ud2, trap = FillKind.JUMP32, FillKind.UD2, FillKind.TRAP1
    assert kinds == [(10, jump), (15, trap), (16, ud2), (18, ud2), (22, jump)]
    assert fills_at((), 29) == ()


def test_window_after_the_site() -> None:
    """With nothing to displace before, the window starts at the site and hides its end: nothing leads there."""
    patch = only("endbr64; syscall; mov %rax, %rdi; ret")
    assert (patch.soundness, shape(patch)) == (CLOSED, (0, 5, 1))
    assert "endbr must stay" in patch.reason


def test_window_before_is_preferred() -> None:
    """Two small instructions before are better than one after: site+2 stays an ordinary address."""
    patch = only("endbr64; xor %eax, %eax; mov $39, %al; syscall; mov %rax, %rdi; ret")
    assert (patch.soundness, shape(patch)) == (CLOSED, (-4, 6, 0))


def test_agnostic_is_preferred_to_small() -> None:
    """A longer window without a hidden boundary wins over a shorter one with one."""
    patch = only("mov $1, %edi; xor %eax, %eax; mov $39, %al; syscall; ret")
    assert (patch.soundness, shape(patch)) == (AGNOSTIC, (-9, 11, 0))


def test_known_entry_never_hidden() -> None:
    """An entry on bytes 1-4 excludes the window."""
    patch = only("endbr64; xor %eax, %eax; entry: mov $39, %al; syscall; mov %rax, %rdi; ret")
    # Not (-4, 6, 0), which would be preferred: the mov is an entry.
    assert shape(patch) == (0, 5, 1)


def test_incomplete_cfg_hides_no_boundary() -> None:
    """Where an unresolved jump may lead anywhere, no old start is put under the jump: the site traps instead."""
    text = "endbr64; xor %eax, %eax; entry: mov $39, %al; syscall; mov %rax, %rdi; ret"
    patch = only(text, cfg_complete=False)
    assert patch.tactic is Tactic.TRAP
    assert "not completely known" in patch.reason


def test_a_known_edge_to_a_trapping_fill_is_worse_than_a_complete_cfg() -> None:
    """The site is jumped to: ud2 would trap each time, so the window starts at the site."""
    text = "mov $39, %eax; entry_site: syscall; cmp $-4, %rax; je entry_site; ret"
    patch = only(text)
    assert (patch.soundness, shape(patch)) == (CLOSED, (0, 6, 1))
    assert "known entry" in patch.reason
    # With an incomplete CFG, slow and right is better than fast and perhaps wrong.
    patch = only(text, cfg_complete=False)
    assert (patch.soundness, shape(patch)) == (AGNOSTIC, (-5, 7, 0))


def test_hints_only_demote() -> None:
    """Of two windows alike, the one to whose hidden boundary unproved bytes would branch is not taken; alone, it is."""
    image, code = code_of("endbr64; xor %edx, %edx; xor %eax, %eax; mov $39, %al; syscall; ret")
    (site,) = code.sites
    found = []
    for hints in (set[int](), {site.vaddr - 2}, {i.vaddr for i in site.before} | {site.vaddr, site.end}):
        hinted = replace(site, encodings=frozenset(hints))
        found.append(shape(make_plan(image, replace(code, sites=(hinted,)), Options()).patches[0]))
    assert found == [(-4, 6, 0), (-2, 5, 1), (-4, 6, 0)]


def test_calls_are_a_last_resort() -> None:
    """A call before the site stays where it is while anything else fits."""
    patch = only("call out; mov $39, %eax; syscall; ret; out: ret")
    assert shape(patch) == (-5, 7, 0)
    patch = only("call out; xor %eax, %eax; syscall; mov %rax, %rdi; ret; out: ret")
    assert not any(i.data[0] == 0xE8 for i in patch.before + patch.after)


def test_call_that_wants_its_own_address_stays() -> None:
    """call/pop reads its return address: with nothing else around, the site traps."""
    patch = only("endbr64; call 1f; 1: pop %rax; syscall; ret")
    assert all(i.data[0] != 0xE8 for i in patch.before)


def test_two_sites_back_to_back() -> None:
    """Neither window contains the other's site, and they do not overlap."""
    first, second = plan("mov $39, %eax; syscall; syscall; mov %rax, %rdi; ret")
    assert shape(first) == (-5, 7, 0)
    assert shape(second) == (0, 5, 1)
    assert first.end == second.start


def test_no_room_at_all() -> None:
    """endbr64 before and a ret after: two and one bytes. The reason names both sides."""
    patch = only("endbr64; syscall; ret")
    assert (patch.tactic, patch.soundness) == (Tactic.TRAP, SoundnessClass.TRAP)
    assert (patch.start, patch.end) == (patch.site.vaddr, patch.site.end)
    assert "endbr" in patch.reason and "straight line" in patch.reason


def test_on_refusal() -> None:
    """keep leaves the site, fail refuses the file and names the site."""
    text = "endbr64; syscall; ret"
    (patch,) = plan(text, Options(on_refusal=OnRefusal.KEEP))
    assert (patch.tactic, patch.soundness) == (Tactic.KEEP, SoundnessClass.NONE)
    with pytest.raises(PolicyError, match=r"1 of 1 sites have no window: 0x401004: .*endbr"):
        plan(text, Options(on_refusal=OnRefusal.FAIL))


# Below the window. A movabs has ten bytes; endbr64 never moves; the ways of a snippet this small are few.
PADDING = "pad0: .skip 12, 0xcc; end_pad0:"
MOVABS = "movabs $0x1122334455667788, %rcx"


def test_short_jump() -> None:
    """Two bytes of the site lead to padding on either side; of several places the nearest one is taken."""
    for text, hole in ((f"endbr64; syscall; ret; {PADDING}", 3), (f"jmp 1f; {PADDING} 1: endbr64; syscall; ret", -9)):
        patch = only(text)
        assert (patch.tactic, patch.soundness, patch.evicted) == (Tactic.SHORT, CLOSED, ())
        assert patch.hole is not None and patch.hole.vaddr - patch.site.vaddr == hole
        assert patch.owned == ((patch.site.vaddr, patch.site.end), (patch.hole.vaddr, patch.hole.vaddr + 5))
        assert patch.hidden == tuple(range(patch.hole.vaddr, patch.hole.vaddr + 5))
        assert patch.reason.startswith("window: none")


def test_short_jump_needs_no_complete_cfg() -> None:
    """Nothing of the function is hidden; that the padding is some was proved."""
    assert only(f"endbr64; syscall; ret; {PADDING}", cfg_complete=False).tactic is Tactic.SHORT


@pytest.mark.parametrize(("filler", "tactic"), [(124, Tactic.SHORT), (125, Tactic.TRAP)])
def test_reach_of_a_short_jump(filler: int, tactic: Tactic) -> None:
    """rel8 ends at 127: behind a ret, cwtl and a jmp rel8 the first place is in reach, or just not."""
    patch = only(f"endbr64; syscall; ret; .fill {filler}, 1, 0x98; jmp 1f; {PADDING} 1: ret")
    assert patch.tactic is tactic


def test_padding_is_shared() -> None:
    """Two sites back to back take two places in one run; a third finds none left."""
    text = f"jmp 1f; {PADDING} 1: endbr64; syscall; syscall; endbr64; syscall; ret"
    patches = plan(text)
    assert [p.tactic for p in patches] == [Tactic.SHORT, Tactic.SHORT, Tactic.TRAP]
    owned = sorted(run for p in patches for run in p.owned)
    assert all(a[1] <= b[0] for a, b in pairwise(owned))


def test_padding_that_something_may_reach() -> None:
    """A byte pair that would jump into the hole costs the class; a window of that class is preferred."""
    # eb into the middle of each place: mov $x, %ecx with the bytes eb rel8 in it.
    text = "endbr64; syscall; ret; pad0: .skip 5, 0xcc; end_pad0: .byte 0xb9, 0xeb, pad0 - 1f + 2; 1: .byte 0, 0; ret"
    patch = only(text)
    assert (patch.tactic, patch.soundness) == (Tactic.SHORT, CFG)
    assert "rel8" in patch.reason


def test_successor_eviction() -> None:
    """What follows the site is entered, so no window hides its start; its ten bytes have room for two jumps."""
    patch = only(f"endbr64; syscall; entry: {MOVABS}; ret")
    assert (patch.tactic, patch.soundness, patch.hidden) == (Tactic.SUCCESSOR, AGNOSTIC, ())
    assert patch.hole is not None and [i.size for i in patch.evicted] == [10]
    assert (patch.hole.vaddr, patch.hole.start) == (patch.site.end + 5, patch.site.end)
    assert [part.split(":")[0] for part in patch.reason.split("; ")] == ["window", "short jump"]


def test_neighbour_eviction() -> None:
    """Before the site, or behind a successor that is too short; an entry within the first ten bytes forbids it."""
    for text, tactic in (
        (f"{MOVABS}; endbr64; syscall; ret", Tactic.NEIGHBOUR),
        (f"endbr64; syscall; entry: nop; entry2: {MOVABS}; ret", Tactic.NEIGHBOUR),
        ("endbr64; syscall; entry: nop; entry2: lea 9(%rip), %rdx; nop; nop; nop; ret", Tactic.NEIGHBOUR),
        ("endbr64; syscall; entry: nop; entry2: lea 9(%rip), %rdx; entry3: nop; nop; nop; ret", Tactic.TRAP),
        ("endbr64; syscall; entry: nop; entry2: lea 9(%rip), %rdx; call entry; ret", Tactic.TRAP),
    ):
        assert only(text).tactic is tactic, text


def test_as_few_instructions_as_possible_are_evicted() -> None:
    """Only up to the tenth byte; what starts under the jumps is hidden."""
    patch = only(f"endbr64; syscall; entry: {MOVABS}; nop; ret")
    assert [i.size for i in patch.evicted] == [10]
    patch = only("endbr64; syscall; entry: lea 9(%rip), %rdx; lea 9(%rip), %rsi; lea 9(%rip), %rdi; ret")
    assert (patch.tactic, [i.size for i in patch.evicted]) == (Tactic.SUCCESSOR, [7, 7])
    assert len(patch.hidden) == 1 and patch.fills == ()


def test_eviction_hides_nothing_of_an_unknown_cfg() -> None:
    """One instruction of ten bytes hides no boundary; several do."""
    assert only(f"endbr64; syscall; entry: {MOVABS}; ret", cfg_complete=False).tactic is Tactic.SUCCESSOR
    text = "endbr64; syscall; entry: lea 9(%rip), %rdx; nop; nop; nop; ret"
    assert only(text).tactic is Tactic.SUCCESSOR
    assert only(text, cfg_complete=False).tactic is Tactic.TRAP


def test_a_slow_window_is_the_last_but_one() -> None:
    """A window where a known edge leads to a trapping fill, if no rung below does better; else padding is."""
    text = "mov $39, %eax; entry_site: syscall; entry: ret; {} jmp entry_site"
    assert only(text.format(PADDING), cfg_complete=False).tactic is Tactic.SHORT
    patch = only(text.format(""), cfg_complete=False)
    assert (patch.tactic, patch.soundness) == (Tactic.WINDOW, AGNOSTIC)
    assert [part.split(":")[0] for part in patch.reason.split("; ")][-1] == "neighbour eviction"


def test_window_stays_in_the_segment() -> None:
    """The instruction behind the segment's file bytes is not displaced."""
    image, code = code_of("endbr64; syscall; mov %rax, %rdi; ret")
    (segment,) = image.segments
    cut = replace(image, segments=(replace(segment, filesz=8),))
    (patch,) = make_plan(cut, code, Options()).patches
    assert patch.tactic is Tactic.TRAP and "segment" in patch.reason


def test_only() -> None:
    """Known numbers that nobody asked for are kept; unknown, wanted ones and those the runtime needs are not."""
    text = "mov $39, %eax; syscall; ret"
    for numbers, wanted in (
        ((39,), Tactic.KEEP),
        ((), Tactic.WINDOW),
        ((39, 2), Tactic.WINDOW),
        ((56,), Tactic.WINDOW),
    ):
        image, code = code_of(text, numbers=numbers)
        (patch,) = make_plan(image, code, Options(only=frozenset({2}))).patches
        assert patch.tactic is wanted, numbers
    assert {56, 13, 59, 231} <= ALWAYS_HOOKED


def test_far_branches_to_a_trapping_fill_are_retargeted() -> None:
    """A rel32 branch to the site would trap each time: its displacement is to lead to the copy; a rel8 one cannot."""
    far = "jmp skip; mov $39, %eax; entry_site: syscall; ret; skip: .skip 200, 0x90; jmp entry_site"
    (patch,) = plan(far, cfg_complete=False)
    (retarget,) = patch.retargets
    assert retarget.target == patch.site.vaddr and retarget.branch.data[0] == 0xE9
    near = "jmp skip; mov $39, %eax; entry_site: syscall; ret; skip: jmp entry_site"
    assert plan(near, cfg_complete=False)[0].retargets == ()


def test_an_operand_out_of_a_copys_reach_is_not_displaced() -> None:
    """A RIP-relative operand may lie 2 GiB away from its instruction on the side away from the trampolines."""
    for far in ("lea far(%rip), %rdx", "cmpb $1, far(%rip)", "jmp far", "jz far", "call far"):
        text = f"endbr64; syscall; {far}; ret; .set far, {{:#x}}"
        (near,) = plan(text.format(TEXT))
        assert near.tactic is Tactic.WINDOW and near.after, far
        (patch,) = plan(text.format(TEXT - 0x7FFF0000))
        assert not patch.after, far
        assert "out of a copy's reach" in patch.reason, far
    # As far away above is nearer to the trampolines.
    (patch,) = plan(f"endbr64; syscall; lea far(%rip), %rdx; ret; .set far, {TEXT + 0x7FFF0000:#x}")
    assert patch.after


def test_restartable_sequences_are_left_alone() -> None:
    """The kernel compares addresses with an rseq section's range: the window after the site would reach into it."""
    text = "endbr64; syscall; start: mov %rax, %rdi; nop; abort: ret"
    image, code = code_of(text)
    _, labels = assemble(text)
    table = TEXT + 0x1000
    start = labels["start"]
    entry = (0).to_bytes(8, "little") + b"".join(v.to_bytes(8, "little") for v in (start, 4, labels["abort"]))
    data = image.data.ljust(0x1000, b"\0") + entry
    load = Segment(
        index=1, type=PT_LOAD, flags=PF_R, offset=0x1000, vaddr=table, paddr=0, filesz=32, memsz=32, align=4096
    )
    section = Section(
        index=1,
        name="__rseq_cs",
        type=SHT_PROGBITS,
        flags=2,
        vaddr=table,
        offset=0x1000,
        size=32,
        link=0,
        info=0,
        align=32,
        entsize=0,
    )
    with_rseq = replace(image, data=data, segments=(*image.segments, load), sections=(section,))
    assert make_plan(image, code, Options()).patches[0].tactic is Tactic.WINDOW
    (patch,) = make_plan(with_rseq, code, Options()).patches
    assert patch.tactic is Tactic.TRAP and "restartable" in patch.reason


# ---------------------------------------------------------------------------------------------------------------------
# Whatever the code looks like

PIECES = (
    *("nop", "push %rbx", "mov %rdi, %rsi", "xor %eax, %eax", "mov $39, %eax", "mov $39, %rax", "lea 9(%rip), %rdx"),
    *("movabs $7, %rcx", "je entry1", "jmp entry2", "call entry1", "call *%rbx", "call *8(%rsp)", "ret", "endbr64"),
    *("syscall", "syscall", "syscall", "entry{}: nop", "entry{}: mov $1, %edi", "cmp $1, %eax", "leave", "int $0x80"),
    *("ret; pad{0}: .skip 12, 0xcc; end_pad{0}: nop", "movabs $8, %rdx; endbr64; syscall", "entry{}: movabs $9, %rdi"),
    *("loop .-6", "jrcxz .+9", "entry{}: syscall", "mov %rax, 8(%rdi)", "nopw 8(%rax,%rax)", "cmpb $1, 4(%rip)"),
)


def random_text(seed: int) -> str:
    chance = random.Random(seed)
    lines = [chance.choice(PIECES).format(n + 3) for n in range(40)]
    return "\n".join(["entry1: nop", *lines, "entry2: ret"])


@pytest.mark.parametrize("seed", range(60))
def test_invariants(seed: int) -> None:
    """Every site has one patch; windows are disjoint and hold no second site; no known entry is hidden; each old start
    behind the jump has a fill with room for its bytes; the class is what the boundaries say."""
    image, code = code_of(random_text(seed), cfg_complete=seed % 3 > 0)
    patches = make_plan(image, code, Options()).patches
    assert [p.site for p in patches] == list(code.sites)
    owned = sorted(run for patch in patches for run in patch.owned)
    assert all(a[1] <= b[0] for a, b in pairwise(owned))
    for patch in patches:
        if patch.tactic is Tactic.WINDOW:
            check_window(patch, code.sites, image)
        elif patch.tactic is not Tactic.TRAP:
            check_hole(patch, code, image)


def test_random_code_reaches_every_rung() -> None:
    """The seeds of ``test_invariants`` need what it checks."""
    found = set()
    for seed in range(60):
        image, code = code_of(random_text(seed), cfg_complete=seed % 3 > 0)
        found |= {p.tactic for p in make_plan(image, code, Options()).patches}
    assert found == set(Tactic) - {Tactic.KEEP}


def check_hole(patch: Patch, code: Code, image: Image) -> None:
    site, hole = patch.site, patch.hole
    assert hole is not None and -128 <= hole.vaddr - site.end <= 127
    assert (patch.start, patch.end, patch.before, patch.after) == (site.vaddr, site.end, (), ())
    if patch.tactic is Tactic.SHORT:
        assert any(low <= hole.vaddr and hole.vaddr + 5 <= high for low, high in code.padding)
        assert patch.hidden == tuple(range(hole.vaddr, hole.vaddr + 5)) and not patch.fills
    else:
        starts = [i.vaddr for i in patch.evicted]
        assert (hole.start, hole.end, hole.vaddr) == (starts[0], patch.evicted[-1].end, starts[0] + 5)
        assert sum(i.size for i in patch.evicted) == hole.end - hole.start >= 10
        assert (patch.tactic is Tactic.SUCCESSOR) is (hole.start == site.end)
        assert patch.hidden == tuple(s for s in starts if 0 < s - hole.start < 10)
        assert starts[-1] - hole.start < 10 and not patch.fills
        assert not any(i.data in (b"\xf3\x0f\x1e\xfa", b"\xcd\x80", b"\x0f\x05") for i in patch.evicted)
        assert not patch.hidden or site.cfg_complete
    assert not set(patch.hidden) & site.entries
    ways = {way for vaddr in patch.hidden for way in all_ways(image, vaddr)}
    assert {(way.kind, way.place, way.target) for way in patch.ways} == ways
    assert patch.soundness is (CFG if ways else CLOSED if patch.hidden else AGNOSTIC)


def check_window(patch: Patch, sites: tuple[Site, ...], image: Image) -> None:
    insns = [*patch.before, *patch.after]
    starts = sorted([i.vaddr for i in insns] + [patch.site.vaddr])
    assert patch.start == starts[0] and patch.end - patch.start >= 5
    assert sum(i.size for i in insns) + 2 == patch.end - patch.start
    assert [s.vaddr for s in sites if patch.start < s.end and s.vaddr < patch.end] == [patch.site.vaddr]
    hidden = [s for s in starts if 0 < s - patch.start < 5]
    assert not set(hidden) & patch.site.entries
    assert patch.hidden == tuple(hidden)
    ways = [way for vaddr in hidden for way in all_ways(image, vaddr)]
    assert {(way.kind, way.place, way.target) for way in patch.ways} == set(ways)
    assert patch.soundness is (CFG if ways else CLOSED if hidden else AGNOSTIC)
    assert not any(i.data in (b"\xf3\x0f\x1e\xfa", b"\xcd\x80") for i in insns)
    behind = [s for s in starts if s - patch.start >= 5]
    assert [f.vaddr for f in patch.fills] == behind
    for fill, (_, limit) in zip(patch.fills, pairwise([*behind, patch.end]), strict=True):
        size = {FillKind.JUMP32: 5, FillKind.UD2: 2, FillKind.TRAP1: 1}[fill.kind]
        assert size <= limit - fill.vaddr
        assert fill.kind is FillKind.JUMP32 or limit - fill.vaddr < 5
