"""The block for sites that a process patches by itself. In: its row of the plans. Out: findings.

docs/design.md, "Promotion", restated: a client's tables and code, with trampolines of no site yet. Every byte is
explained: what the runtime fills in is zero, or int3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from .finding import Finding, Unsound
from .rawelf import PAGE

_CONFIG: Final = struct.Struct("<QIIQQQQQQQQQQQQQQQIIIIII16B")
_MAGIC, _ABI_VERSION, _CLIENT = 0x3166636B63696C66, 5, 16
_SITE: Final = struct.Struct("<IIIHH")
_INSN: Final = struct.Struct("<Hh")
_SLOT_SIZE: Final = 8
_ROOM: Final = bytes.fromhex("cc" * 8)  # for a copy of what stands before the call
# Parts between the displacements of the slots: docs/design.md, "Hosts and clients".
_ENTER: Final = tuple(map(bytes.fromhex, ("488b0d", "e316" + "4889e1" + "65488b242500000000" + "51" + "ff15")))
_CALL: Final = bytes.fromhex("e3" + "1f" + "5c" + "0f05")
_LEAVE: Final = tuple(map(bytes.fromhex, ("488b0d", "e314" + "4889e1" + "65488b242500000000" + "51" + "ff15")))
_BACK: Final = bytes.fromhex("5c" + "488d0d00000000" + "e900000000")
_TEMPLATE: Final = (12, 21, 22, 28, 30, 31, 33, 45, 54, 55, 61, 61, 62, 69, 1, 0)  # struct flk_template


def check_promotion(r: tuple[int, bytes], rx: tuple[int, bytes]) -> Iterator[Finding]:
    """``r``, ``rx``: vaddr and bytes of its two pages."""
    try:
        _check(r, rx)
    except Unsound as stop:
        yield stop.finding


def _check(r: tuple[int, bytes], rx: tuple[int, bytes]) -> None:
    if (r[0], rx[0], len(r[1]), len(rx[1])) != (0, PAGE, PAGE, PAGE):
        raise _bad(f"pages at {r[0]:#x}, {rx[0]:#x}, expected 0, {PAGE:#x}")
    count = _CONFIG.unpack_from(rx[1])[18]
    insns = count * _SITE.size
    slots = -(-(insns + 2 * count * _INSN.size) // 16) * 16
    if not count or slots + 2 * _SLOT_SIZE > PAGE:
        raise _bad(f"{count} sites in a page")
    size = len(_trampoline(0, slots))
    wanted = _CONFIG.pack(
        *(_MAGIC, _ABI_VERSION, _CLIENT, PAGE, 0, 0, PAGE, _CONFIG.size + count * size, 0, insns, slots, slots),
        *(0, 0, 0, 0, 0, 0, count, 2 * count, 0, 0, 0, 0),
        *_TEMPLATE,
    )
    code = b"".join(_trampoline(PAGE + _CONFIG.size + n * size, slots) for n in range(count))
    if rx[1] != (wanted + code).ljust(PAGE, b"\xcc"):
        raise _bad("its code is not that of trampolines without a site")
    rows = b"".join(_SITE.pack(_CONFIG.size + n * size, 0, 2 * n, 2, len(_ROOM)) for n in range(count))
    rows += (_INSN.pack(0, 0) + _INSN.pack(size - 5, 2)) * count
    if r[1] != rows.ljust(PAGE, b"\0"):
        raise _bad("its tables are not those of its code")


def _trampoline(at: int, slots: int) -> bytes:
    code = _ROOM
    for parts, slot in ((_ENTER, slots), (_LEAVE, slots + _SLOT_SIZE)):
        for part in parts:
            code += part
            code += struct.pack("<i", slot - (at + len(code) + 4))
        if parts is _ENTER:
            code += _CALL
    return code + _BACK


def _bad(message: str) -> Unsound:
    return Unsound("promotion", None, f"the block for promoted sites: {message}")
