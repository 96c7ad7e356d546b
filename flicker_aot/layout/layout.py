"""Assigns every address. In: ``Image``, ``Code``, ``Plan``, ``Stub``, ``Options``. Out: a ``Layout``.

The appended block (docs/design.md, "The output file"): R with the program header table, the runtime's tables and the
note; RX with trampolines and, page-aligned, the runtime's text; RW with its data. In memory in this order. In the file
R comes last, at ``vaddr - base`` where that costs little: there kernels before 5.18, qemu-user and code that walks
__ehdr_start find the table, and RX and RW fill the hole that it leaves, which is as large as the input's bss. Past
MAX_HOLE it would cost too much; then R stands right behind RW, and the runtime's start corrects AT_PHDR.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import InputError, InternalError
from ..model.code import Code
from ..model.image import ET_EXEC, PAGE_SIZE, PF_R, PF_W, PF_X, REL32_REACH, Image
from ..model.layout import Layout, NewSection, NewSymbol, Place, Placement, Trampoline, size_budget
from ..model.options import Asked, Options, Role
from ..model.plan import FillKind, Plan, Tactic
from ..model.plans import FilePlan
from ..x86.assemble import Shape, Template, trampoline_template
from ..x86.encode import INT3
from .abi import (
    CONFIG_SIZE,
    F_CLIENT,
    F_FILLS,
    F_FOLLOW,
    F_GUARD_OFF,
    F_GUARD_ON,
    F_INTERP,
    F_KEPT,
    F_LIBC,
    F_OWN_GS,
    F_PROGRAM,
    F_SINGLE,
    F_TRAPS,
    F_VDSO_HIDE,
    F_VDSO_KEEP,
    F_VSYSCALL,
    OWN_GS_BYTES,
    OWN_GS_EXTRA,
    SLOTS_SIZE,
    FlkConfig,
    FlkTemplate,
)
from .edits import jump_edit, make_edits
from .note import fixed_part, note_bytes, placed_part, runtime_sha256
from .plans import Pages, plans_bytes, plans_size
from .promotion import promotion_pages
from .start import Start, copy_of, edit_of, open_edits, read_start
from .stub import Stub
from .tables import Tables, make_tables
from .trampolines import Slot, build, copies, measure
from .unwind import Unwind, plan_unwind

PHDR_SIZE: Final = 56
ADDED_PHDRS: Final = 4  # R, RX, RW and the note; a client has no RW
MAX_PHDRS: Final = 73  # kernels before 5.10 take a table of at most one page (fs/binfmt_elf.c)
START_ALIGN: Final = 16  # of the copy of an interpreter's first instructions, behind the trampolines
R_SIZE_UNIT: Final = 64  # bytes; coarse, so that the size of R and the size of the note that tells it soon agree
MAX_HOLE: Final = 4 * PAGE_SIZE  # bytes of the file that may stay empty for R to be at ``vaddr - base``
SECTION_HEADER_SIZE: Final = 64
_ADDED_SECTIONS: Final = 12  # with what their names take
_NOTE_ESTIMATE: Final = 48  # bytes a site; it compresses well


@dataclass(frozen=True, slots=True, kw_only=True)
class _Addresses:
    """Where the parts of the block are, once it is known how large R is: vaddrs, and file offsets."""

    r: int
    shown_phdrs: int | None
    sites: int
    insns: int
    traps: int
    slots: int
    exe: int
    interp: int
    frame_header: int
    frames: int
    plans: int
    note: int
    r_end: int
    rx: int
    start_copy: int
    text: int
    text_end: int
    rw: int
    rw_end: int
    r_offset: int
    rx_offset: int
    rw_offset: int

    def in_file(self, data_size: int) -> dict[str, tuple[int, int, int, int]]:
        """vaddr, offset, filesz, memsz of each segment; ``data_size``: of the runtime's data in the file."""
        r, rx = self.r_end - self.r, self.text_end - self.rx
        segments = {"r": (self.r, self.r_offset, r, r), "rx": (self.rx, self.rx_offset, rx, rx)}
        if self.rw < self.rw_end:
            segments["rw"] = (self.rw, self.rw_offset, data_size, self.rw_end - self.rw)
        return segments


def lay_out(
    image: Image,
    code: Code,
    plan: Plan,
    stub: Stub,
    options: Options,
    plans: Sequence[FilePlan] = (),
    asked: Asked | None = None,
) -> Layout:
    """All addresses and bytes of the output. InputError where the file has no room for what must be added.

    ``plans``: of a single program the files that it may map; ``asked``: what they were made with.
    """
    is_client = options.role.is_client
    phnum = len(image.segments) + ADDED_PHDRS - is_client
    if phnum > MAX_PHDRS:
        raise InputError(f"{image.path}: {phnum} program headers would be needed, at most {MAX_PHDRS} are possible")
    fixed = image.type == ET_EXEC
    start = read_start(image, plan.loader_opens) if options.role is Role.INTERPRETER else None
    shape = Shape.CLIENT if is_client else Shape.ENTER if stub.leave is None else Shape.ENTER_LEAVE
    template = trampoline_template(shape)
    labels = _labels(template, has_leave=shape is not Shape.ENTER)
    slots = measure(plan.patches, template, fixed=fixed)
    tables = make_tables(slots, image.base_vaddr)
    texts = _texts(options)
    shows = options.role.hides_interpreter
    name = str(options.exe_path or image.path)
    promoted = _promoted() if options.guard == "patch" else None
    size_of_plans = plans_size(plans, promoted, plan, name) if options.has_plans else 0
    unwind = plan_unwind(image, slots, labels)
    added = unwind.table is not None and not unwind.table.header
    if phnum + added > MAX_PHDRS or _too_large(
        image, stub, tables, slots, unwind, phnum + added, start, is_client, texts, shows
    ):
        # What was guessed is believed where the output lists it, and nowhere else.
        unwind, added = plan_unwind(image, slots, labels, guesses=False).without_table(), False
    phnum += added
    unplaced = fixed_part(image, code, plan, options, plans, asked) | {"runtime_sha256": runtime_sha256(stub)}
    # The note tells how large R is, in which it stands: grow until it fits.
    size = 0
    placed: tuple[int, int, int] | None = None
    while True:
        where = _addresses(
            image, stub, tables, slots, unwind, phnum, size, start, is_client, texts, shows, size_of_plans
        )
        _check_reach(image, where)
        moved = copies(slots, where.rx)
        segments = where.in_file(len(stub.data))
        runtime = _runtime(stub, where, options.role, tells=plan.debug_state is not None)
        if placed != (where.rx, where.text, where.frame_header):
            placed = where.rx, where.text, where.frame_header
            unwound = unwind.loaded(where.rx, where.frame_header)
            debug_frame = unwind.debug_frame(where.rx, where.text, stub.frames)
            unplaced |= {"unwind_sha256": [_sha256(b"".join(unwound)), _sha256(debug_frame)]}
        note = unplaced | placed_part(slots, where.rx, moved, segments, runtime, labels)
        if start is not None:
            note["start"] = [start.vaddr, start.end, where.start_copy, start.size_bytes]
        encoded = note_bytes(note)
        needed = where.note + len(encoded) - where.r
        if needed <= size:
            break
        size = _align(needed, R_SIZE_UNIT)
    holes = runtime | {"bound": runtime["enter"], "leave_bound": runtime["leave"]}
    trampolines = build(slots, where.rx, template, moved, holes, fixed=fixed)
    config = _config(image, code, plan, options, where, tables, slots, stub, texts).pack(labels)
    edits = make_edits(image, trampolines, moved)
    planned = plans_bytes(plans, promoted, edits, image.data, name) if size_of_plans else b""
    if len(planned) != size_of_plans:
        raise InternalError(f"{image.path}: plans of {len(planned)} bytes, {size_of_plans} planned")
    code_parts = [(t.vaddr, t.data) for t in trampolines]
    if start is not None:
        code_parts.append((where.start_copy, copy_of(start, where.start_copy)))
        edits = (*edits, edit_of(start, image, runtime["start"]), *open_edits(start, image, where.start_copy))
    if plan.debug_state is not None:
        edits = (*edits, jump_edit(image, plan.debug_state, runtime["debugger"]))
    edits = tuple(sorted(edits, key=lambda e: e.offset))
    return Layout(
        r=Placement(
            place=Place.R,
            flags=PF_R,
            vaddr=where.r,
            offset=where.r_offset,
            memsz=where.r_end - where.r,
            data=_r_data(where, tables, texts, unwound, planned, encoded),
        ),
        rx=Placement(
            place=Place.RX,
            flags=PF_R | PF_X,
            vaddr=where.rx,
            offset=where.rx_offset,
            memsz=where.text_end - where.rx,
            data=_rx_data(where, code_parts, stub, config),
        ),
        rw=Placement(
            place=Place.RW,
            flags=PF_R | PF_W,
            vaddr=where.rw,
            offset=where.rw_offset,
            memsz=where.rw_end - where.rw,
            data=stub.data,
        ),
        entry=runtime["start"] if options.role in (Role.HOST, Role.PROGRAM, Role.SINGLE) else image.entry,
        phnum=phnum,
        trampolines=trampolines,
        edits=edits,
        note=note,
        note_vaddr=where.note,
        note_size=len(encoded),
        symbols=tuple(_symbols(trampolines, stub, where)),
        sections=_sections(where, stub, size_of_plans, len(encoded)),
        frame_header=(where.frame_header, unwind.header_size) if unwind.header_size else None,
        debug_frame=debug_frame,
        shown_phdrs=where.shown_phdrs,
        plans_size=size_of_plans,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Texts:
    """Paths for the runtime, without their NULs."""

    exe: bytes
    interp: bytes


def _texts(options: Options) -> _Texts:
    exe = b"" if options.exe_path is None else os.fsencode(options.exe_path)
    interp = None if options.bundle is None else options.bundle.interpreter
    if (interp is None) == (options.role is Role.PROGRAM):
        raise InternalError(f"a {options.role.value} with interpreter {interp}")
    return _Texts(exe=exe, interp=os.fsencode(interp or ""))


# ---------------------------------------------------------------------------------------------------------------------
# Addresses


def _page_up(value: int) -> int:
    return -(-value // PAGE_SIZE) * PAGE_SIZE


def _align(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _too_large(
    image: Image,
    stub: Stub,
    tables: Tables,
    slots: Sequence[Slot],
    unwind: Unwind,
    phnum: int,
    start: Start | None,
    is_client: bool,
    texts: _Texts,
    shows: bool,
) -> bool:
    """Whether the unwind tables that are loaded take the output beyond its budget (model/layout.py).

    What debuggers read comes first: `.debug_frame`, whose size hardly depends on addresses, has its place.
    """
    where = _addresses(image, stub, tables, slots, unwind, phnum, 0, start, is_client, texts, shows, 0)
    in_r = where.note - where.r + _NOTE_ESTIMATE * len(slots)
    headers = SECTION_HEADER_SIZE * (len(image.sections) + _ADDED_SECTIONS)
    debug_frame = len(zlib.compress(unwind.debug_frame(where.rx, where.text, stub.frames), 9))
    size = where.r_offset + in_r + headers + debug_frame + image.trailing
    return size > size_budget(len(image.data))


def _addresses(
    image: Image,
    stub: Stub,
    tables: Tables,
    slots: Sequence[Slot],
    unwind: Unwind,
    phnum: int,
    r_size: int,
    start: Start | None,
    is_client: bool,
    texts: _Texts,
    shows: bool,
    size_of_plans: int,
) -> _Addresses:
    first = min(image.loads, key=lambda s: s.vaddr)
    # What kernels before 5.18 add e_phoff to, and where file offset 0 is mapped (fs/binfmt_elf.c: load_addr).
    base = first.vaddr - first.offset
    memory_end = max(_page_up(s.vaddr + s.memsz) for s in image.loads)
    start_copy = _align(slots[-1].end if slots else 0, START_ALIGN)
    tramp_size = _page_up(start_copy + (start.size_bytes if start else 0))
    rx_offset = _page_up(len(image.data))
    rw_offset = _page_up(rx_offset + tramp_size + len(stub.text))
    # One page stays free: strip and objcopy move the program header table up to a page down, in file and memory.
    r = memory_end + PAGE_SIZE
    r_offset = _page_up(rw_offset + len(stub.data))
    if r - base - r_offset <= MAX_HOLE:
        r_offset = max(r_offset, r - base)
        r = base + r_offset
    shown_phdrs = r + phnum * PHDR_SIZE if shows else None
    sites = r + phnum * PHDR_SIZE * (1 + shows)
    insns = sites + len(tables.sites)
    traps = _align(insns + len(tables.insns), 4)
    exe = traps + len(tables.traps)
    interp = exe + len(texts.exe) + 1
    texts_end = interp + (len(texts.interp) + 1 if texts.interp else 0)
    slots_at = _align(texts_end, SLOTS_SIZE)
    frame_header = slots_at + SLOTS_SIZE if is_client else _align(texts_end, 4)
    frames = frame_header + unwind.header_size
    plans = frames + unwind.frames_size
    if size_of_plans:
        plans = _page_up(plans)  # its blocks are mapped from the file
    rx = _page_up(r + r_size)
    text = rx + tramp_size
    rw = text + stub.data_vaddr
    return _Addresses(
        r=r,
        shown_phdrs=shown_phdrs,
        sites=sites,
        insns=insns,
        traps=traps,
        slots=slots_at,
        exe=exe,
        interp=interp,
        frame_header=frame_header,
        frames=frames,
        plans=plans,
        note=_align(plans + size_of_plans, 4),
        r_end=r + r_size,
        rx=rx,
        start_copy=rx + start_copy,
        text=text,
        text_end=text + len(stub.text),
        rw=rw,
        # A client has neither data nor a gs mode of its own: the process's runtime has both.
        rw_end=rw
        + (0 if is_client else _page_up(stub.data_memsz) + _page_up(OWN_GS_BYTES * (len(slots) + OWN_GS_EXTRA))),
        r_offset=r_offset,
        rx_offset=rx_offset,
        rw_offset=rw_offset,
    )


def _check_reach(image: Image, where: _Addresses) -> None:
    lowest = min(s.vaddr for s in image.loads)
    if where.rw_end - lowest >= REL32_REACH:
        raise InputError(
            f"{image.path}: the program spans {where.rw_end - lowest:#x} bytes from {lowest:#x}, "
            f"expected less than {REL32_REACH:#x}: the appended code would be out of a jump's reach"
        )


def _runtime(stub: Stub, where: _Addresses, role: Role, *, tells: bool) -> dict[str, int]:
    """Vaddrs of the entry points; "leave" and "debugger": 0 where there is none. Of a client: of its slots."""
    if role.is_client:
        return {
            "start": where.text + stub.start if role is Role.PROGRAM else 0,
            "enter": where.slots,
            "leave": where.slots + SLOTS_SIZE // 2,
            "config": where.text + stub.config,
            "debugger": 0,
        }
    return {
        "start": where.text + stub.start,
        "enter": where.text + stub.enter,
        "leave": 0 if stub.leave is None else where.text + stub.leave,
        "config": where.text + stub.config,
        "debugger": where.text + stub.debugger if tells else 0,
    }


# ---------------------------------------------------------------------------------------------------------------------
# What the runtime is told


def _labels(template: Template, *, has_leave: bool) -> FlkTemplate:
    at = template.labels
    return FlkTemplate(
        load=at["load"],
        push=at["push"],
        call=at["call"],
        ret=at["ret"],
        pop=at["pop"],
        sys=at["sys"],
        after=at["after"],
        vload=at["vload"] if has_leave else 0,
        vpush=at["vpush"] if has_leave else 0,
        vcall=at["vcall"] if has_leave else 0,
        vret=at["answered"] if has_leave else 0,
        apop=at["answered"] if has_leave else 0,
        lea=at["lea"],
        lea_end=at["lea_end"],
        has_leave=int(has_leave),
    )


def _promoted() -> Pages:
    client = trampoline_template(Shape.CLIENT)
    return promotion_pages(client, _labels(client, has_leave=True))


def _config(
    image: Image,
    code: Code,
    plan: Plan,
    options: Options,
    where: _Addresses,
    tables: Tables,
    slots: Sequence[Slot],
    stub: Stub,
    texts: _Texts,
) -> FlkConfig:
    flags = {"hook": 0, "keep": F_VDSO_KEEP, "hide": F_VDSO_HIDE}[options.vdso]
    flags |= {"auto": 0, "patch": 0, "on": F_GUARD_ON, "off": F_GUARD_OFF}[options.guard]
    flags |= F_VSYSCALL * (options.vsyscall == "trap")
    if any(p.tactic is Tactic.KEEP for p in plan.patches):
        flags |= F_KEPT
    if any(p.tactic is Tactic.TRAP for p in plan.patches):
        flags |= F_TRAPS
    if any(f.kind is not FillKind.JUMP32 for p in plan.patches for f in p.fills):
        flags |= F_FILLS
    flags |= _ROLE_FLAGS[options.role]
    if code.gs_uses and not options.role.is_client:
        flags |= F_OWN_GS
    bss_vaddr, bss_end = _bss(image) if options.role is Role.INTERPRETER else (0, 0)
    place = options.bundle
    if place is not None:
        flags |= F_FOLLOW * place.follows | F_LIBC * place.is_libc
    return FlkConfig(
        flags=flags,
        self_vaddr=where.text + stub.config,
        image_vaddr=image.base_vaddr,
        entry_vaddr=where.start_copy if options.role is Role.INTERPRETER else image.entry,
        tramp_vaddr=where.rx,
        tramp_size=slots[-1].end if slots else 0,
        sites_vaddr=where.sites,
        insns_vaddr=where.insns,
        traps_vaddr=where.traps,
        slots_vaddr=where.slots if options.role.is_client else 0,
        exe_vaddr=where.exe,
        phdrs_vaddr=where.shown_phdrs or 0,
        interp_vaddr=where.interp if texts.interp else 0,
        bss_vaddr=bss_vaddr,
        bss_end=bss_end,
        plans_vaddr=where.plans if options.has_plans else 0,
        site_count=tables.site_count,
        insn_count=tables.insn_count,
        trap_count=tables.trap_count,
        exe_size=len(texts.exe),
        depth=0 if place is None else place.depth,
        interp_size=len(texts.interp),
    )


def _bss(image: Image) -> tuple[int, int]:
    """What kernels before 6.7 clear and map of the input: what follows its last file bytes. Of the output that is
    behind the appended segments (fs/binfmt_elf.c, load_elf_interp)."""
    return max(s.vaddr + s.filesz for s in image.loads), max(s.vaddr + s.memsz for s in image.loads)


_ROLE_FLAGS: Final = {
    Role.HOST: 0,
    Role.INTERPRETER: F_INTERP,
    Role.CLIENT: F_CLIENT,
    Role.PROGRAM: F_CLIENT | F_PROGRAM,
    Role.SINGLE: F_SINGLE,
}


# ---------------------------------------------------------------------------------------------------------------------
# Bytes


def _fill(start: int, end: int, parts: Sequence[tuple[int, bytes]], padding: bytes) -> bytes:
    """[start, end) with each (vaddr, bytes) of ``parts`` in its place, ascending, ``padding`` between."""
    data = bytearray()
    for vaddr, part in (*parts, (end, b"")):
        if vaddr < start + len(data):
            raise InternalError(f"the part at {vaddr:#x} overlaps the one before it")
        data += padding * (vaddr - start - len(data)) + part
    return bytes(data)


def _r_data(
    where: _Addresses, tables: Tables, texts: _Texts, unwind: tuple[bytes, bytes], plans: bytes, note: bytes
) -> bytes:
    parts = (
        (where.sites, tables.sites),
        (where.insns, tables.insns),
        (where.traps, tables.traps),
        (where.exe, texts.exe + b"\0"),
        (where.interp, texts.interp + b"\0" if texts.interp else b""),
        (where.frame_header, unwind[0]),
        (where.frames, unwind[1]),
        (where.plans, plans),
        (where.note, note),
    )
    return _fill(where.r, where.r_end, parts, b"\0")


def _rx_data(where: _Addresses, code: Sequence[tuple[int, bytes]], stub: Stub, config: bytes) -> bytes:
    if len(config) != CONFIG_SIZE:
        raise InternalError(f"flk_config has {len(config)} bytes, expected {CONFIG_SIZE}")
    text = stub.text[: stub.config] + config + stub.text[stub.config + CONFIG_SIZE :]
    return _fill(where.rx, where.text_end, [*code, (where.text, text)], INT3)


def _symbols(trampolines: Sequence[Trampoline], stub: Stub, where: _Addresses) -> Iterator[NewSymbol]:
    for t in trampolines:
        name = f"flk_at_{t.patch.site.vaddr:x}"
        yield NewSymbol(name=name, vaddr=t.vaddr, size=len(t.data), place=Place.RX, is_function=True)
    for s in stub.symbols:
        place = Place.RW if s.vaddr >= stub.data_vaddr else Place.RX
        yield NewSymbol(name=s.name, vaddr=where.text + s.vaddr, size=s.size, place=place, is_function=s.is_function)


def _sections(where: _Addresses, stub: Stub, size_of_plans: int, note_size: int) -> tuple[NewSection, ...]:
    """Headers for all of the block, so that strip and objcopy keep it and objdump and gdb show it."""
    data_end = where.rw + len(stub.data)
    tables = where.shown_phdrs or where.sites
    unwound_size = (where.plans if size_of_plans else where.note) - where.frames
    # The program header table stays outside: BFD puts the one that it writes in front of the segment's first section.
    # What PT_GNU_EH_FRAME refers to is a section of its own: strip and objcopy compute segments from sections.
    sections = [
        NewSection(name=".flicker.tables", place=Place.R, vaddr=tables, size=where.frame_header - tables, align=8),
        NewSection(
            name=".flicker.eh_frame_hdr",
            place=Place.R,
            vaddr=where.frame_header,
            size=where.frames - where.frame_header,
            align=4,
        ),
        NewSection(name=".flicker.eh_frame", place=Place.R, vaddr=where.frames, size=unwound_size, align=4),
        NewSection(name=".flicker.plans", place=Place.R, vaddr=where.plans, size=size_of_plans, align=PAGE_SIZE),
        NewSection(name=".note.flicker-aot", place=Place.R, vaddr=where.note, size=note_size, align=4, is_note=True),
        NewSection(name=".flicker.text", place=Place.RX, vaddr=where.rx, size=where.text_end - where.rx, align=16),
        NewSection(name=".flicker.data", place=Place.RW, vaddr=where.rw, size=len(stub.data), align=16),
        NewSection(
            name=".flicker.bss", place=Place.RW, vaddr=data_end, size=where.rw_end - data_end, align=1, is_bss=True
        ),
    ]
    return tuple(s for s in sections if s.size)
