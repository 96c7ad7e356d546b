"""Rewriters with a bug: their outputs hang together (note, tables, symbols and bytes agree), and are wrong.

Each mutant is made by the project's own stages with one thing changed in what they hand on, so that only a verifier
that knows what a right output means can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from flicker_aot.discover import discover
from flicker_aot.elf.read import read_image
from flicker_aot.emit import emit
from flicker_aot.errors import FlickerError
from flicker_aot.layout import lay_out, read_stub, trampolines
from flicker_aot.model.code import Code, Flow, Insn
from flicker_aot.model.image import Image
from flicker_aot.model.options import Options
from flicker_aot.model.plan import FillKind, Hole, Patch, Plan, SoundnessClass, Tactic
from flicker_aot.plan import make_plan
from flicker_aot.toolchain import runtime_for
from flicker_aot.verify import verify
from flicker_aot.x86.decode import decode_one
from flicker_aot.x86.relocate import Unrelocatable, relocate

from ..malformed.conftest import assemble
from ..support.need import need
from ..unit.test_verify import SHAPES

# Beside the shapes: bytes of a system call inside an instruction, a call and a loop that move, two that are evicted.
MORE: Final = (
    SHAPES
    + """
    .text
    function inside
    mov $0x00050f00, %eax
    mov $39, %eax
    syscall
    ret
inside_end:
    function calling
    mov $39, %ecx
    mov %ecx, %eax
    jmp 1f
    ud2
1:  syscall
    call ripafter
    ret
calling_end:
    function evicting
    endbr64
    syscall
gets_in: lea 0x11223344(%rdx), %rdx
    lea 0x11223344(%rdx), %rcx
    ret
    .fill 150, 1, 0x98
evicting_end:
    .data
    .quad gets_in
"""
)


@pytest.fixture(scope="module", params=["static", "pie", "busybox"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Image, Code, Plan]:
    folder = tmp_path_factory.mktemp("semantic")
    if request.param == "busybox":
        source = need("busybox")
    else:
        flags = ("-static",) if request.param == "static" else ("-static-pie",)
        source = assemble(folder, "more", *flags, source=MORE)
    image = read_image(source, source.read_bytes())
    code = discover(image)
    return image, code, make_plan(image, code, Options())


def made(image: Image, code: Code, plan: Plan) -> bytes | None:
    """The output for ``plan``; None where a later stage notices the mistake itself."""
    try:
        return emit(image, lay_out(image, code, plan, read_stub(runtime_for(Options())), Options()))
    except (FlickerError, LookupError):
        return None


Change = Callable[[Image, Patch], Patch | None]


def _side(patch: Patch, which: str) -> tuple[Insn, ...]:
    return patch.before if which == "before" else patch.after


def _with_side(patch: Patch, which: str, insns: tuple[Insn, ...]) -> Patch:
    return replace(patch, before=insns) if which == "before" else replace(patch, after=insns)


def drop(which: str, index: int) -> Change:
    def change(_: Image, patch: Patch) -> Patch | None:
        insns = _side(patch, which)
        return _with_side(patch, which, insns[:index] + insns[index + 1 :]) if len(insns) > index else None

    return change


def twice(which: str) -> Change:
    def change(_: Image, patch: Patch) -> Patch | None:
        insns = _side(patch, which)
        return _with_side(patch, which, (insns[0], *insns)) if insns else None

    return change


def reorder(which: str) -> Change:
    def change(_: Image, patch: Patch) -> Patch | None:
        insns = _side(patch, which)
        swapped = (insns[1], insns[0], *insns[2:]) if len(insns) > 1 else insns
        return _with_side(patch, which, swapped) if insns != swapped else None

    return change


def other_side(_: Image, patch: Patch) -> Patch | None:
    """What stood before the site is run after it."""
    if not patch.before:
        return None
    return replace(patch, before=patch.before[:-1], after=(patch.before[-1], *patch.after))


def late(image: Image, patch: Patch) -> Patch | None:
    """The jump back skips an instruction: the window ends behind it, but it was not copied."""
    following = _at(image, patch.end)
    return None if following is None else replace(patch, end=following.end)


def early(_: Image, patch: Patch) -> Patch | None:
    """The jump back repeats the last copied instruction."""
    if not patch.after or patch.after[-1].vaddr - patch.start < 5:
        return None
    end = patch.after[-1].vaddr
    return replace(patch, end=end, fills=tuple(f for f in patch.fills if f.vaddr < end))


def other_number(_: Image, patch: Patch) -> Patch | None:
    """A copy that differs by one bit of its immediate."""
    for i, insn in enumerate(patch.before):
        if insn.data[0] == 0xB8:
            wrong = insn._replace(data=insn.data[:1] + bytes((insn.data[1] ^ 1,)) + insn.data[2:])
            return replace(patch, before=(*patch.before[:i], wrong, *patch.before[i + 1 :]))
    return None


def one_byte_early(image: Image, patch: Patch) -> Patch | None:
    """The window starts inside an instruction of the original."""
    if patch.tactic is not Tactic.WINDOW or not patch.before:
        return None
    start = patch.before[0].vaddr + 1
    insns: list[Insn] = []
    at = start
    while at < patch.site.vaddr:
        insn = _at(image, at)
        if insn is None or insn.flow is not Flow.NEXT:
            return None
        insns.append(insn)
        at = insn.end
    if at != patch.site.vaddr or patch.end - start < 5:
        return None
    return _restarted(patch, start, tuple(insns))


def _restarted(patch: Patch, start: int, before: tuple[Insn, ...]) -> Patch:
    starts = {i.vaddr for i in before} | {patch.site.vaddr} | {i.vaddr for i in patch.after}
    fills = tuple(f for f in patch.fills if f.vaddr - start >= 5 and f.vaddr in starts)
    hidden = any(0 < s - start < 5 for s in starts)
    soundness = SoundnessClass.CFG if hidden else SoundnessClass.AGNOSTIC
    return replace(patch, start=start, before=before, fills=fills, soundness=soundness)


def no_fills(_: Image, patch: Patch) -> Patch | None:
    return replace(patch, fills=()) if patch.fills else None


def long_fills(_: Image, patch: Patch) -> Patch | None:
    """A trapping fill of two bytes where there is one. (One of one byte where there are two is right.)"""
    fills = tuple(replace(f, kind=FillKind.UD2) if f.kind is FillKind.TRAP1 else f for f in patch.fills)
    return replace(patch, fills=fills) if fills != patch.fills else None


def agnostic(_: Image, patch: Patch) -> Patch | None:
    changed = replace(patch, soundness=SoundnessClass.AGNOSTIC)
    return changed if patch.soundness is not SoundnessClass.AGNOSTIC else None


def closed(_: Image, patch: Patch) -> Patch | None:
    """Where a window could be called closed, the planner does: something leads to what this one hides."""
    return replace(patch, soundness=SoundnessClass.CLOSED) if patch.soundness is SoundnessClass.CFG else None


def evicted(change: Callable[[tuple[Insn, ...]], tuple[Insn, ...]]) -> Change:
    """Other instructions than those that the hole displaces."""

    def changed(_: Image, patch: Patch) -> Patch | None:
        insns = change(patch.evicted)
        return replace(patch, evicted=insns) if insns and insns != patch.evicted else None

    return changed


def hole_in_code(image: Image, patch: Patch) -> Patch | None:
    """The padding that a hole lies in is none: what follows the site."""
    following = _at(image, patch.end)
    if patch.tactic is not Tactic.SHORT or following is None:
        return None
    hole = Hole(vaddr=patch.end, start=patch.end, end=patch.end + 5)
    return replace(patch, hole=hole, hidden=tuple(range(hole.start, hole.end)))


def evicted_one_late(image: Image, patch: Patch) -> Patch | None:
    """What is evicted starts inside the first instruction of the original."""
    hole = patch.hole
    if hole is None or not patch.evicted:
        return None
    insns, at = [], hole.start + 1
    while at < hole.start + 11:
        insn = _at(image, at)
        if insn is None or insn.flow is not Flow.NEXT:
            return None
        insns.append(insn)
        at = insn.end
    moved = Hole(vaddr=hole.vaddr + 1, start=hole.start + 1, end=at)
    hidden = tuple(i.vaddr for i in insns[1:])
    return replace(patch, hole=moved, evicted=tuple(insns), hidden=hidden, soundness=SoundnessClass.CFG)


def other_hole(image: Image, patch: Patch) -> Patch | None:
    """The jump in the hole stands a byte late."""
    if patch.hole is None or not patch.evicted or patch.hole.end < patch.hole.vaddr + 6:
        return None
    return replace(patch, hole=replace(patch.hole, vaddr=patch.hole.vaddr + 1))


def _at(image: Image, vaddr: int) -> Insn | None:
    for p in image.exec_loads:
        if p.vaddr <= vaddr < p.vaddr + p.filesz:
            at = vaddr - p.vaddr + p.offset
            return decode_one(image.data[at : at + 15], vaddr)
    return None


CHANGES: Final[dict[str, Change]] = {
    "dropped before": drop("before", 0),
    "dropped after": drop("after", 0),
    "dropped second before": drop("before", 1),
    "twice before": twice("before"),
    "twice after": twice("after"),
    "reordered before": reorder("before"),
    "reordered after": reorder("after"),
    "before the site to after it": other_side,
    "jump back one instruction late": late,
    "jump back one instruction early": early,
    "another number": other_number,
    "window starts inside an instruction": one_byte_early,
    "fills left out": no_fills,
    "fills longer than their place": long_fills,
    "evicted left out": evicted(lambda insns: insns[1:]),
    "evicted twice": evicted(lambda insns: (*insns[:1], *insns)),
    "evicted reordered": evicted(lambda insns: insns[::-1]),
    "evicted inside an instruction": evicted_one_late,
    "hole in code": hole_in_code,
    "hole a byte late": other_hole,
    "called agnostic": agnostic,
    "called closed": closed,
}


def mutants(parts: tuple[Image, Code, Plan], change: Change, limit: int) -> Iterator[tuple[Patch, bytes]]:
    """(the changed patch, the output): every patch that can be changed so, at most ``limit``."""
    image, code, plan = parts
    for i, patch in enumerate(plan.patches):
        changed = change(image, patch)
        if changed is not None and limit:
            output = made(image, code, replace(plan, patches=(*plan.patches[:i], changed, *plan.patches[i + 1 :])))
            if output is not None:
                limit -= 1
                yield changed, output


@pytest.mark.parametrize("name", CHANGES)
def test_planner_with_a_bug(parts: tuple[Image, Code, Plan], name: str) -> None:
    """Every plan with one wrong patch is found out, whatever the note says to explain it."""
    image, _, _ = parts
    survivors = [hex(p.site.vaddr) for p, output in mutants(parts, CHANGES[name], 12) if not verify(image.data, output)]
    assert survivors == []


def test_left_out_site(parts: tuple[Image, Code, Plan]) -> None:
    """A system call that is neither patched nor named escapes the hook: it is found."""
    image, code, plan = parts
    for i in range(0, len(plan.patches), max(1, len(plan.patches) // 12)):
        output = made(image, code, replace(plan, patches=plan.patches[:i] + plan.patches[i + 1 :]))
        assert output is not None
        assert "escape" in {f.code for f in verify(image.data, output)}, hex(plan.patches[i].site.vaddr)


def test_retargets_left_out(parts: tuple[Image, Code, Plan]) -> None:
    """A branch that leads under a window's jump is found."""
    image, code, plan = parts
    for i, patch in enumerate(plan.patches):
        hidden = [r for r in patch.retargets if 0 < r.target - patch.start < 5]
        if hidden:
            changed = replace(patch, retargets=tuple(r for r in patch.retargets if r not in hidden))
            output = made(image, code, replace(plan, patches=(*plan.patches[:i], changed, *plan.patches[i + 1 :])))
            assert output is None or verify(image.data, output), hex(patch.site.vaddr)


@pytest.mark.parametrize("what", ["return address", "target", "operand", "loop"])
def test_relocation_with_a_bug(parts: tuple[Image, Code, Plan], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that push another return address, lead to another target or refer to another operand are found."""
    image, code, plan = parts

    def wrong(insn: Insn, new_vaddr: int, *, fixed: bool, target: int | None = None) -> bytes | Unrelocatable:
        if what == "target" and insn.target is not None:
            return relocate(insn, new_vaddr, fixed=fixed, target=(insn.target if target is None else target) + 1)
        if what == "operand" and insn.flow is Flow.NEXT and insn.data[-6:-4] != b"":
            moved = insn._replace(vaddr=insn.vaddr + 1)
            return relocate(moved, new_vaddr, fixed=fixed, target=target)
        if what == "return address" and insn.flow in (Flow.CALL, Flow.INDIRECT_CALL):
            moved = insn._replace(vaddr=insn.vaddr + 1)
            return relocate(moved, new_vaddr, fixed=fixed, target=target)
        if what == "loop" and insn.flow is Flow.BRANCH:
            copy = relocate(insn, new_vaddr, fixed=fixed, target=target)
            assert isinstance(copy, bytes)
            return bytes((copy[0] ^ 1,)) + copy[1:] if copy[0] != 0x0F else bytes((0x0F, copy[1] ^ 1)) + copy[2:]
        return relocate(insn, new_vaddr, fixed=fixed, target=target)

    good = made(image, code, plan)
    assert good is not None and verify(image.data, good) == ()
    monkeypatch.setattr(trampolines, "relocate", wrong)
    output = made(image, code, plan)
    assert output is None or output == good or verify(image.data, output)


def overlapping(patches: Sequence[Patch]) -> tuple[Patch, ...] | None:
    """The first window that can be stretched over the start of the next one."""
    for first, second in pairwise(patches):
        if first.tactic is second.tactic is Tactic.WINDOW and 0 <= second.start - first.end < 40:
            return tuple(replace(p, end=second.start + 2) if p is first else p for p in patches)
    return None


def test_overlapping_windows(parts: tuple[Image, Code, Plan]) -> None:
    """No byte has two owners."""
    image, code, plan = parts
    patches = overlapping(plan.patches)
    if patches is not None:
        output = made(image, code, replace(plan, patches=patches))
        assert output is None or verify(image.data, output)


def test_entry_and_rights(parts: tuple[Image, Code, Plan], tmp_path: Path) -> None:
    """Another entry, and appended memory that is writable and executable."""
    image, code, plan = parts
    layout = lay_out(image, code, plan, read_stub(runtime_for(Options())), Options())
    for wrong in (
        replace(layout, entry=layout.entry + 1),
        replace(layout, entry=image.entry),
        replace(layout, rx=replace(layout.rx, flags=7)),
        replace(layout, rw=replace(layout.rw, flags=7)),
        replace(layout, r=replace(layout.r, flags=6)),
    ):
        assert verify(image.data, emit(image, wrong))
