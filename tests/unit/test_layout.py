"""Addresses, tables and the note: consistent with each other, and with what the runtime will read."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from flicker_aot.errors import InputError, InternalError
from flicker_aot.layout import lay_out, read_stub
from flicker_aot.layout.abi import ABI_VERSION, CONFIG_MAGIC, FlkConfig, FlkInsn, FlkSite, FlkTemplate, FlkTrap
from flicker_aot.layout.edits import make_edits
from flicker_aot.layout.layout import MAX_HOLE
from flicker_aot.layout.note import note_bytes
from flicker_aot.layout.trampolines import copies, measure
from flicker_aot.model.image import ET_DYN, Image
from flicker_aot.model.layout import Layout
from flicker_aot.model.options import Options
from flicker_aot.model.plan import Fill, FillKind, Patch, Plan, SoundnessClass, Tactic
from flicker_aot.plan import make_plan
from flicker_aot.x86.assemble import Shape, trampoline_template
from flicker_aot.x86.decode import decode_one

from .snippets import code_of, fake_stub, objdump

TEXT = """
    mov $39, %eax; syscall; ret
    lea 64(%rip), %rdi; je far; mov $2, %al; syscall; mov %rax, %rdi; ret
    endbr64; syscall; ret
    endbr64; again: syscall; cmp $-4, %rax; je again; ret
far: ret
"""


def laid_out(options: Options | None = None, has_leave: bool = False) -> tuple[Image, Plan, Layout]:
    image, code = code_of(TEXT)
    chosen = options or Options()
    plan = make_plan(image, code, chosen)
    return image, plan, lay_out(image, code, plan, read_stub(fake_stub(has_leave)), chosen)


def at(layout: Layout, vaddr: int, size: int) -> bytes:
    """Bytes of the appended block."""
    for p in layout.placements:
        if p.vaddr <= vaddr and vaddr + size <= p.vaddr + p.filesz:
            return p.data[vaddr - p.vaddr : vaddr - p.vaddr + size]
    raise AssertionError(f"{vaddr:#x} is not in the block")


def config(layout: Layout) -> FlkConfig:
    (vaddr,) = (s.vaddr for s in layout.symbols if s.name == "flk_config")
    return FlkConfig(
        **dict(zip(FlkConfig.__slots__, FlkConfig.FORMAT.unpack(at(layout, vaddr, FlkConfig.FORMAT.size)), strict=True))
    )


def test_block() -> None:
    """Pages do not mix rights, segments ascend in memory, and offset == vaddr - base for the program header table."""
    image, _, layout = laid_out()
    (load,) = image.loads
    end = load.vaddr + load.memsz
    for placement, flags in zip(layout.placements, (4, 5, 6), strict=True):
        assert placement.flags == flags
        assert placement.vaddr % 4096 == 0 and placement.vaddr >= end
        end = placement.vaddr + placement.memsz
    assert layout.r.offset == layout.r.vaddr - (load.vaddr - load.offset)
    end = len(image.data)
    for placement in layout.in_file_order:
        assert placement.offset % 4096 == 0 and placement.offset >= end
        end = placement.offset + placement.filesz


@pytest.mark.parametrize("bss_size", [0, 0x3000, 0x20000, 0x1000000])
def test_the_bss_hole_is_filled(bss_size: int) -> None:
    """Code and data stand where the table's rule would leave a hole; else the rule is given up."""
    image, code = code_of(TEXT)
    (load,) = image.segments
    grown = replace(image, segments=(replace(load, memsz=load.memsz + bss_size),))
    layout = lay_out(grown, code, make_plan(image, code, Options()), read_stub(fake_stub()), Options())
    unfilled = 4096 + bss_size - layout.rx.filesz - layout.rw.filesz  # one page stays free for strip
    page_ends = 4 * 4096
    at_its_address = layout.r.offset == layout.r.vaddr - (load.vaddr - load.offset)
    assert at_its_address or unfilled > MAX_HOLE - page_ends
    assert not at_its_address or unfilled <= MAX_HOLE
    assert layout.hole_size(len(image.data)) <= MAX_HOLE + page_ends


@pytest.mark.parametrize("has_leave", [False, True])
def test_config(has_leave: bool) -> None:
    """The runtime's configuration holds the final addresses, counts and flags."""
    image, plan, layout = laid_out(has_leave=has_leave)
    found = config(layout)
    assert (found.magic, found.abi_version) == (CONFIG_MAGIC, ABI_VERSION)
    assert found.self_vaddr == next(s.vaddr for s in layout.symbols if s.name == "flk_config")
    assert (found.image_vaddr, found.entry_vaddr) == (image.base_vaddr, image.entry)
    assert found.tramp_vaddr == layout.rx.vaddr == layout.trampolines[0].vaddr
    assert found.tramp_vaddr + found.tramp_size == layout.trampolines[-1].end
    assert found.site_count == len(plan.patches) == 4
    assert found.flags == 1 | 2  # one site traps, and fills do
    template = FlkTemplate(*FlkTemplate.FORMAT.unpack(at(layout, found.self_vaddr + FlkConfig.FORMAT.size, 16)))
    assert template.has_leave == has_leave
    assert (template.apop > 0) == (template.vcall > 0) == has_leave


@pytest.mark.parametrize(("vdso", "flag"), [("hook", 0), ("keep", 4), ("hide", 8)])
def test_vdso_flags(vdso: str, flag: int) -> None:
    """--vdso reaches the runtime."""
    assert config(laid_out(Options(vdso=vdso))[2]).flags & 12 == flag


@pytest.mark.parametrize(("guard", "flag"), [("auto", 0), ("on", 4096), ("off", 8192)])
def test_guard_flags(guard: str, flag: int) -> None:
    """--guard reaches the runtime."""
    assert config(laid_out(Options(guard=guard))[2]).flags & 12288 == flag


def test_tables() -> None:
    """Each copy's entry leads from its place in the trampoline to the original, and each #UD address to its copy."""
    _, _, layout = laid_out()
    found = config(layout)
    sites = list(FlkSite.FORMAT.iter_unpack(at(layout, found.sites_vaddr, 16 * found.site_count)))
    insns = list(FlkInsn.FORMAT.iter_unpack(at(layout, found.insns_vaddr, 4 * found.insn_count)))
    traps = list(FlkTrap.FORMAT.iter_unpack(at(layout, found.traps_vaddr, 8 * found.trap_count)))
    assert [s[0] for s in sites] == sorted(s[0] for s in sites)
    assert sum(s[3] for s in sites) == len(insns)
    for trampoline, (tramp, site, first, count, entry) in zip(layout.trampolines, sites, strict=True):
        patch = trampoline.patch
        assert found.tramp_vaddr + tramp == trampoline.vaddr
        assert found.image_vaddr + site == patch.site.vaddr
        assert trampoline.vaddr + entry == trampoline.entry
        own = insns[first : first + count]
        assert [d for d, _ in own] == sorted(d for d, _ in own)
        *displaced, (back, behind) = own
        pairs = [(patch.site.vaddr + orig, trampoline.vaddr + delta) for delta, orig in displaced]
        assert pairs == [*trampoline.before, *trampoline.after]
        assert patch.site.vaddr + behind == patch.end
        jump = decode_one(trampoline.data[back:], trampoline.vaddr + back)
        assert jump is not None and jump.target == patch.end
    # In address order; what raises #UD there is exactly what the edits wrote.
    assert traps == sorted(traps)
    edited = {e.vaddr: e.data for e in layout.edits}
    for addr, target in traps:
        start = max(v for v in edited if v <= found.image_vaddr + addr)
        assert edited[start][found.image_vaddr + addr - start] in (0x0F, 0x06)
        assert found.tramp_vaddr + target in {t.vaddr for t in layout.trampolines} | {
            new for t in layout.trampolines for _, new in (*t.before, *t.after, (0, t.entry))
        }


def test_windows_lead_to_their_trampolines() -> None:
    """objdump reads a jump to the trampoline, fills behind it, and int3 where no old instruction started."""
    _, _, layout = laid_out()
    by_start = {t.patch.start: t for t in layout.trampolines}
    for edit in layout.edits:
        trampoline = by_start[edit.vaddr]
        first = objdump(edit.data, edit.vaddr)[0][2]
        if trampoline.patch.tactic is Tactic.TRAP:
            assert first == "ud2"
            continue
        assert first == f"jmp {trampoline.vaddr:#x}"
        starts = {f.vaddr - edit.vaddr for f in trampoline.patch.fills}
        for offset in range(5, len(edit.data)):
            filler = edit.data[offset] == 0xCC
            assert filler is (offset not in starts and offset - 1 not in starts)


def test_branches_between_moved_instructions_lead_to_copies() -> None:
    """A loop back to a site that has moved with the branch stays inside the trampoline."""
    image, code = code_of("endbr64; again: syscall; je again; nop; ret")
    plan = make_plan(image, code, Options())
    layout = lay_out(image, code, plan, read_stub(fake_stub()), Options())
    (trampoline,) = layout.trampolines
    (branch, copy), *_ = trampoline.after
    assert branch == trampoline.patch.site.end
    found = decode_one(trampoline.data[copy - trampoline.vaddr :], copy)
    assert found is not None and found.target == trampoline.entry


def test_fill_that_jumps() -> None:
    """With room for it, a fill is a jump to the copy and needs no entry in the trap table."""
    image, code = code_of("mov $1, %edi; mov $39, %eax; syscall; ret")
    (site,) = code.sites
    patch = Patch(
        site=site,
        tactic=Tactic.WINDOW,
        soundness=SoundnessClass.AGNOSTIC,
        start=site.before[0].vaddr,
        end=site.end,
        before=site.before,
        after=(),
        fills=(Fill(vaddr=site.vaddr - 5, kind=FillKind.JUMP32), Fill(vaddr=site.vaddr, kind=FillKind.UD2)),
        retargets=(),
        reason="",
    )
    layout = lay_out(image, code, Plan(patches=(patch,)), read_stub(fake_stub()), Options())
    (trampoline,), (edit,) = layout.trampolines, layout.edits
    second = objdump(edit.data, edit.vaddr)[1]
    assert second[2] == f"jmp {trampoline.before[1][1]:#x}"
    assert config(layout).trap_count == 1


def test_kept_sites_cost_nothing() -> None:
    """A kept site has no trampoline, no edit and no row; the note lists it."""
    image, code = code_of("mov $39, %eax; syscall; ret", numbers=(39,))
    options = Options(only=frozenset({1}))
    plan = make_plan(image, code, options)
    layout = lay_out(image, code, plan, read_stub(fake_stub()), options)
    assert (layout.trampolines, layout.edits, config(layout).site_count) == ((), (), 0)
    assert layout.note["kept"] == [code.sites[0].vaddr]


def test_note_does_not_depend_on_the_order_of_keys() -> None:
    """The same content gives the same bytes."""
    assert note_bytes({"a": 1, "b": [2]}) == note_bytes({"b": [2], "a": 1})
    name_size, size, kind = struct.unpack_from("<III", note_bytes({"a": 1}))
    assert (name_size, kind) == (12, 1)
    assert len(note_bytes({"a": 1})) == 12 + 12 + (size + 3 & -4)


def test_note_larger_than_a_page() -> None:
    """R grows by whole pages until the note, which tells where RX is, fits before it."""
    image, code = code_of("\n".join(f"mov ${n}, %eax; syscall; ret" for n in range(700)))
    layout = lay_out(image, code, make_plan(image, code, Options()), read_stub(fake_stub()), Options())
    assert layout.note_size > 4096
    assert layout.note_vaddr + layout.note_size <= layout.rx.vaddr
    segments = layout.note["segments"]
    assert isinstance(segments, dict) and segments["rx"][0] == layout.rx.vaddr


def test_too_far() -> None:
    """A program that spans 2 GiB is refused: its ends could not reach each other."""
    image, code = code_of(TEXT)
    (load,) = image.segments
    huge = replace(image, segments=(replace(load, memsz=(1 << 31) - 0x3000),))
    with pytest.raises(InputError, match="out of a jump's reach"):
        lay_out(huge, code, make_plan(image, code, Options()), read_stub(fake_stub()), Options())


def test_too_many_program_headers() -> None:
    """Kernels before 5.10 take one page of them."""
    image, code = code_of(TEXT)
    (load,) = image.segments
    many = replace(image, segments=(load, *(replace(load, type=4, index=i) for i in range(1, 70))))
    with pytest.raises(InputError, match="74 program headers"):
        lay_out(many, code, make_plan(image, code, Options()), read_stub(fake_stub()), Options())


def test_position_independent_copies_of_calls_are_longer() -> None:
    """PIE cannot push an absolute return address: the planned sizes differ, and what is built has them."""
    image, code = code_of("call out; mov %eax, %eax; syscall; ret; out: ret")
    (site,) = code.sites
    patch = Patch(
        site=site,
        tactic=Tactic.WINDOW,
        soundness=SoundnessClass.AGNOSTIC,
        start=site.before[0].vaddr,
        end=site.end,
        before=site.before,
        after=(),
        fills=(),
        retargets=(),
        reason="",
    )
    sizes = []
    for one in (image, replace(image, type=ET_DYN)):
        layout = lay_out(one, code, Plan(patches=(patch,)), read_stub(fake_stub()), Options())
        sizes.append(len(layout.trampolines[0].data))
    assert sizes[1] - sizes[0] == 7


def test_overlapping_edits_are_our_bug() -> None:
    """Two owners of one byte raise."""
    image, code = code_of("mov $39, %eax; syscall; ret")
    plan = make_plan(image, code, Options())
    slots = measure(plan.patches, trampoline_template(Shape.ENTER), fixed=True)
    layout = lay_out(image, code, plan, read_stub(fake_stub()), Options())
    with pytest.raises(InternalError, match="overlap"):
        make_edits(image, layout.trampolines * 2, copies(slots, layout.rx.vaddr))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"\x7fELF", b"\x7fELG", "not a 64-bit ELF"),
        (b"flk_enter\0", b"flk_inter\0", "flk_enter are missing"),
        (b"flk_has_leave\0", b"flk_had_leave\0", "flk_has_leave are missing"),
    ],
)
def test_broken_stubs(old: bytes, new: bytes, why: str) -> None:
    """A stub that lacks something says what."""
    data = fake_stub()
    assert old in data
    with pytest.raises(InternalError, match=why):
        read_stub(data.replace(old, new))


def test_stub_with_relocations() -> None:
    """Nothing in the runtime may need a relocation."""
    data = bytearray(fake_stub())
    (shoff,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<I", data, shoff + 64 + 4, 4)  # .text becomes SHT_RELA
    with pytest.raises(InternalError, match="relocations"):
        read_stub(bytes(data))
