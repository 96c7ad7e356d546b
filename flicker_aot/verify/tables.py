"""The runtime's configuration and tables, as it will read them. In: a ``Subject``. Out: ``Tables`` and findings.

Layout of the structures: runtime_stub/abi.h, restated here on purpose.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .finding import Finding, Unsound
from .note import TEMPLATE_LABELS, SegmentClaim
from .plans import plans_end
from .rawelf import PAGE, PHDR_SIZE
from .subject import JMP_SIZE, TRAP_TACTIC, Subject

_MAGIC: Final = 0x3166636B63696C66
_ABI_VERSION: Final = 5
_CONFIG: Final = struct.Struct("<QIIQQQQQQQQQQQQQQQIIIIII16B")
CONFIG_SIZE: Final = _CONFIG.size
_SITE: Final = struct.Struct("<IIIHH")
_INSN: Final = struct.Struct("<Hh")
_TRAP: Final = struct.Struct("<II")
_F_TRAPS, _F_FILLS, _F_OWN_GS = 1, 2, 64
_ROLES: Final = {"host": 0, "client": 16, "interpreter": 32, "program": 16 | 256, "single": 2048}
_F_FOLLOW, _F_LIBC = 512, 1024
_F_KEPT = 16384
_SLOTS_SIZE: Final = 16
_VDSO: Final = {"hook": 0, "keep": 4, "hide": 8}
_GUARD: Final = {"auto": 0, "on": 4096, "off": 8192}
_VSYSCALL: Final = {"leave": 0, "trap": 32768}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """struct flk_config with the tables that it points to. ``sites``, ``insns``: rows as in abi.h; ``traps``: vaddr ->
    vaddr, in the order of the file."""

    flags: int
    self_vaddr: int
    image_vaddr: int
    entry_vaddr: int
    tramp_vaddr: int
    tramp_size: int
    tables: tuple[
        tuple[int, int], ...
    ]  # [start, end) vaddrs of the three tables, a client's slots, two paths, phdrs, plans
    slots_vaddr: int
    phdrs_vaddr: int
    bss: tuple[int, int]
    plans_vaddr: int
    depth: int
    interpreter: bytes  # with its NUL; b"" without one
    sites: tuple[tuple[int, int, int, int, int], ...]
    insns: tuple[tuple[int, int], ...]
    traps: dict[int, int]
    template: dict[str, int]
    exe_path: bytes  # with its NUL


def read_tables(subject: Subject) -> Tables:
    """Raises Unsound where there is no configuration or a table is not in R."""
    output, at = subject.output, subject.claim.config
    fields = _CONFIG.unpack(output.at(at, _CONFIG.size))
    magic, version, flags, self_vaddr, image, entry, tramp, tramp_size, sites, insns, traps, slots, exe = fields[:13]
    phdrs, interp, bss, bss_end, plans, site_count, insn_count, trap_count, exe_size, depth, interp_size = fields[13:24]
    if (magic, version) != (_MAGIC, _ABI_VERSION):
        raise Unsound("config", at, f"magic {_MAGIC:#x}, ABI {_ABI_VERSION} expected, {magic:#x}, {version} found")
    if fields[-1]:
        raise Unsound("config", at, f"the reserved field is {fields[-1]:#x}, expected 0")
    if not _inside(subject.claim.segments["r"], exe, exe_size + 1):
        raise Unsound("config", exe, f"the path of {exe_size} bytes for /proc/self/exe is outside R")
    interp_end = interp + interp_size + 1 if interp else 0
    if (interp or interp_size) and not _inside(subject.claim.segments["r"], interp, interp_size + 1):
        raise Unsound("config", interp, f"the interpreter's path of {interp_size} bytes is outside R")
    phdrs_end = phdrs + len(output.segments) * PHDR_SIZE if phdrs else 0
    behind_plans = plans_end(subject.output, plans) if plans else 0
    rows = _TRAP.iter_unpack(_table(subject, traps, trap_count, _TRAP))
    trap_rows = [(image + addr, tramp + target) for addr, target in rows]
    addresses = [addr for addr, _ in trap_rows]
    if addresses != sorted(set(addresses)):
        raise Unsound("trap", traps, "trap table is not sorted by address, or has one twice")
    return Tables(
        flags=flags,
        self_vaddr=self_vaddr,
        image_vaddr=image,
        entry_vaddr=entry,
        tramp_vaddr=tramp,
        tramp_size=tramp_size,
        tables=(
            (sites, sites + site_count * _SITE.size),
            (insns, insns + insn_count * _INSN.size),
            (traps, traps + trap_count * _TRAP.size),
            (slots, slots + (_SLOTS_SIZE if slots else 0)),
            (exe, exe + exe_size + 1),
            (interp, interp_end),
            (phdrs, phdrs_end),
            (plans, behind_plans),
        ),
        slots_vaddr=slots,
        phdrs_vaddr=phdrs,
        bss=(bss, bss_end),
        plans_vaddr=plans,
        depth=depth,
        interpreter=output.at(interp, interp_size + 1) if interp else b"",
        sites=tuple(_SITE.iter_unpack(_table(subject, sites, site_count, _SITE))),
        insns=tuple(_INSN.iter_unpack(_table(subject, insns, insn_count, _INSN))),
        traps=dict(trap_rows),
        template=dict(zip(TEMPLATE_LABELS, fields[24:], strict=False)),
        exe_path=output.at(exe, exe_size + 1),
    )


def _table(subject: Subject, vaddr: int, count: int, row: struct.Struct) -> bytes:
    r = subject.claim.segments["r"]
    if count and not _inside(r, vaddr, count * row.size):
        raise Unsound("config", vaddr, f"table of {count} rows is outside R")
    return subject.output.at(vaddr, count * row.size) if count else b""


def _inside(segment: SegmentClaim, vaddr: int, size: int) -> bool:
    return segment.vaddr <= vaddr and vaddr + size <= segment.vaddr + segment.filesz


def code_end(subject: Subject, tables: Tables) -> int:
    """Where trampolines, and behind them the copy of an interpreter's first instructions, end."""
    end = tables.tramp_vaddr + tables.tramp_size
    moved = subject.claim.displaced_start
    return end if moved is None else max(end, moved.copy + moved.copy_size)


def text_start(subject: Subject, tables: Tables) -> int:
    return -(-code_end(subject, tables) // PAGE) * PAGE


def check_tables(subject: Subject, tables: Tables) -> Iterator[Finding]:
    yield from _config(subject, tables)
    yield from _runtime(subject, tables)
    yield from _sites(subject, tables)


def _bad(code: str, vaddr: int | None, message: str) -> Finding:
    return Finding(code=code, vaddr=vaddr, message=message)


def _config(subject: Subject, tables: Tables) -> Iterator[Finding]:
    claim, at, rx = subject.claim, subject.claim.config, subject.claim.segments["rx"]
    expected = {
        "self_vaddr": (at, tables.self_vaddr),
        "image_vaddr": (subject.original.image_vaddr, tables.image_vaddr),
        "entry_vaddr": (
            claim.displaced_start.copy if claim.displaced_start else subject.original.entry,
            tables.entry_vaddr,
        ),
        "slots_vaddr": (claim.enter if claim.is_client else 0, tables.slots_vaddr),
    }
    for name, (wanted, found) in expected.items():
        if wanted != found:
            yield _bad("config", at, f"{name}: {wanted:#x} expected, {found:#x} found")
    if os.fsencode(claim.exe_path) + b"\0" != tables.exe_path:
        yield _bad("config", at, f"path for /proc/self/exe: {claim.exe_path!r} expected, {tables.exe_path!r} found")
    yield from _place(subject, tables)
    yield from _bss(subject, tables)
    if claim.template != tables.template:
        yield _bad("config", at, f"template {tables.template} is not the note's {claim.template}")
    if not _inside(rx, tables.tramp_vaddr, tables.tramp_size):
        yield _bad("config", tables.tramp_vaddr, f"trampolines of {tables.tramp_size:#x} bytes are outside RX")
    tramp_end = tables.tramp_vaddr + tables.tramp_size
    last = max((w.claim.trampoline_end for w in subject.windows), default=tables.tramp_vaddr)
    if tramp_end != last:
        yield _bad("config", tramp_end, f"trampolines end at {last:#x}, the runtime is told otherwise")
    named = [("config", at)]
    if claim.is_client:
        yield from _slots(subject)
        named += [("start", claim.start)] if claim.start else []
    else:
        named += [("start", claim.start), ("enter", claim.enter)]
    if claim.template["has_leave"]:
        named += [] if claim.is_client else [("leave", claim.leave)]
    elif claim.leave:
        yield _bad("config", claim.leave, "a leave part that no trampoline calls")
    for name, vaddr in named:
        if not _inside(rx, vaddr, 1) or tables.tramp_vaddr <= vaddr < tramp_end:
            yield _bad("config", vaddr, f"the runtime's {name} is not in RX behind the trampolines")
    tactics = any(w.claim.tactic == TRAP_TACTIC for w in subject.windows)
    others = {w.claim.site for w in subject.windows if w.is_trap}
    others |= {w.claim.hole[0] for w in subject.windows if w.claim.hole is not None}
    fills = any(vaddr not in others for vaddr in tables.traps)
    for flag, wanted, what in (
        (_F_TRAPS, tactics, "trap sites"),
        (_F_FILLS, fills, "trapping fills"),
        (_F_KEPT, bool(claim.kept), "kept sites"),
        (_F_OWN_GS, bool(claim.gs_uses) and not claim.is_client, "uses of gs"),
    ):
        if bool(tables.flags & flag) != wanted:
            yield _bad("config", at, f"flags {tables.flags:#x}: {'some' if wanted else 'no'} {what} in the windows")
    rest = tables.flags & ~(_F_TRAPS | _F_FILLS | _F_OWN_GS | _F_FOLLOW | _F_LIBC | _F_KEPT)
    options = _VDSO.get(claim.vdso, 0) | _GUARD.get(claim.guard, 0) | _VSYSCALL.get(claim.vsyscall, 0)
    if options | _ROLES[claim.role] != rest:
        said = f"vDSO {claim.vdso!r}, guard {claim.guard!r}, vsyscall {claim.vsyscall!r}, {claim.role}"
        yield _bad("config", at, f"flags {tables.flags:#x} do not say {said} and nothing else")


def _place(subject: Subject, tables: Tables) -> Iterator[Finding]:
    """Where the file stands in its bundle, and what of that a file in none must not say."""
    place, at = subject.claim.place, subject.claim.config
    depth, flags, wanted = 0, 0, b""
    if place is not None:
        depth, flags = place.depth, _F_FOLLOW * place.follows | _F_LIBC * place.is_libc
        wanted = os.fsencode(place.interpreter) + b"\0" if place.interpreter else b""
    if (depth, wanted, flags) != (tables.depth, tables.interpreter, tables.flags & (_F_FOLLOW | _F_LIBC)):
        yield _bad("config", at, f"place in a bundle: {place} expected, {tables.depth} {tables.interpreter!r} found")
    if bool(wanted) != (subject.claim.role == "program"):
        yield _bad("config", at, f"the path of an interpreter in a {subject.claim.role}: {tables.interpreter!r}")


def _bss(subject: Subject, tables: Tables) -> Iterator[Finding]:
    """Of an interpreter: what Linux 6.1 would clear and map behind the original's file bytes, its runtime has to."""
    loads = subject.original.loads
    wanted = (max(p.vaddr + p.filesz for p in loads), max(p.vaddr + p.memsz for p in loads))
    if tables.bss != (wanted if subject.claim.role == "interpreter" else (0, 0)):
        yield _bad("config", subject.claim.config, f"bss {tables.bss} in a {subject.claim.role}, the input's: {wanted}")


def _slots(subject: Subject) -> Iterator[Finding]:
    """A client's slots are zero in the file: whoever maps it without a runtime makes plain system calls."""
    claim = subject.claim
    if claim.leave != claim.enter + _SLOTS_SIZE // 2 or claim.enter % _SLOTS_SIZE:
        yield _bad("config", claim.enter, f"slots at {claim.enter:#x} and {claim.leave:#x} are not one aligned pair")
    if not _inside(claim.segments["r"], claim.enter, _SLOTS_SIZE):
        yield _bad("config", claim.enter, "slots are outside R")
    elif any(subject.output.at(claim.enter, _SLOTS_SIZE)):
        yield _bad("config", claim.enter, "slots are not zero in the file")
    if claim.start and claim.role == "client":
        yield _bad("config", claim.start, "a client with a start of its own")


def _runtime(subject: Subject, tables: Tables) -> Iterator[Finding]:
    """The runtime's text, which starts at the page behind the trampolines, and data are those that were linked."""
    claim, output = subject.claim, subject.output
    rx, rw = claim.segments["rx"], claim.writable
    start = text_start(subject, tables)
    text = bytearray(output.at(start, rx.vaddr + rx.filesz - start))
    at = claim.config - start
    text[at : at + _CONFIG.size] = bytes(_CONFIG.size)
    found = hashlib.sha256(text + (output.at(rw.vaddr, rw.filesz) if rw.filesz else b"")).hexdigest()
    if found != claim.runtime_sha256:
        yield _bad("runtime", start, f"sha256 {claim.runtime_sha256} expected, {found} found: the runtime is damaged")


def _sites(subject: Subject, tables: Tables) -> Iterator[Finding]:
    """One row for each trampoline, ascending, with its displaced instructions and the closing jump."""
    windows = sorted(subject.windows, key=lambda w: w.claim.trampoline)
    if len(windows) != len(tables.sites):
        yield _bad("table", None, f"{len(windows)} patches, {len(tables.sites)} rows in the site table")
        return
    used = 0
    for window, (tramp, site, first, count, entry) in zip(windows, tables.sites, strict=True):
        claim = window.claim
        if first != used:
            yield _bad("table", claim.site, f"its displaced instructions start at row {first}, expected {used}")
        used += count
        wanted = (claim.trampoline, claim.site, claim.entry)
        found = (tables.tramp_vaddr + tramp, tables.image_vaddr + site, tables.tramp_vaddr + tramp + entry)
        if wanted != found:
            yield _bad("table", claim.site, f"site row {_hex(wanted)} expected, {_hex(found)} found")
        moved = [(copy - claim.trampoline, old - claim.site) for old, copy in claim.evicted]
        if window.evicted_end is not None:
            # The jump behind the evicted copies: it stands right before T, for what follows the run.
            moved.append((claim.entry - JMP_SIZE - claim.trampoline, window.evicted_end - claim.site))
        moved += [(copy - claim.trampoline, old - claim.site) for old, copy in (*claim.before, *claim.after)]
        rows = list(tables.insns[first : first + count])
        # The closing jump stands for the first instruction after the window.
        if rows[: len(moved)] != moved or [old for _, old in rows[len(moved) :]] != [claim.end - claim.site]:
            yield _bad("table", claim.site, f"displaced instructions {moved} expected, {rows} found")
    if used != len(tables.insns):
        yield _bad("table", None, f"{len(tables.insns)} displaced instructions in the table, {used} belong to a site")


def _hex(values: tuple[int, ...]) -> str:
    return "(" + ", ".join(f"{v:#x}" for v in values) + ")"
