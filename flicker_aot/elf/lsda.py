"""Exception tables (LSDA). In: an Image and a table's vaddr. Out: the landing pads, which are entries of the function.

Source: LSB 5.0 / Itanium C++ ABI, "Exception Handling Tables"; the layout that libgcc's personality routines read.
"""

from __future__ import annotations

from typing import Final

from ..model.image import Image
from .eh_frame import DW_EH_PE_OMIT, DW_EH_PE_ULEB128, Reader

_HEADER_BYTES: Final = 32  # more than two encodings, two pointers and two lengths take
_LIMIT_BYTES: Final = 1 << 20  # more call sites than any function has


def landing_pads(image: Image, lsda: int, function_start: int) -> tuple[int, ...]:
    """Vaddrs of the landing pads, ascending; empty where the table cannot be read."""
    reader = Reader(image.read(lsda, _HEADER_BYTES), lsda)
    try:
        encoding = reader.u8()
        base = function_start if encoding == DW_EH_PE_OMIT else reader.encoded(encoding)
        if reader.u8() != DW_EH_PE_OMIT:
            reader.uleb()  # distance to the type table
        call_site_encoding = reader.u8()
        size = reader.uleb()
        if base is None or size > _LIMIT_BYTES:
            return ()
        sites = Reader(image.read(lsda + reader.at, size), lsda + reader.at)
        pads = _pads(sites, size, call_site_encoding)
    except IndexError:
        return ()
    return tuple(sorted({base + pad for pad in pads if pad}))


def _pads(sites: Reader, size: int, encoding: int) -> list[int | None]:
    """The third field of each call site: start and length of the guarded range, landing pad, action (a ULEB128)."""
    if encoding == DW_EH_PE_ULEB128 and len(sites.data) == size:
        return [*sites.all_ulebs()[2::4]]
    pads: list[int | None] = []
    while sites.at < size:
        for _ in range(2):
            sites.encoded(encoding)
        pads.append(sites.encoded(encoding))
        sites.uleb()
    return pads
