"""Exception tables (LSDA). In: an Image and a table's vaddr. Out: the landing pads, which are entries of the function.

Source: LSB 5.0 / Itanium C++ ABI, "Exception Handling Tables"; the layout that libgcc's personality routines read.
"""

from __future__ import annotations

from typing import Final

from ..model.image import Image
from .eh_frame import DW_EH_PE_OMIT, Reader

_LIMIT_BYTES: Final = 1 << 20  # more call sites than any function has


def landing_pads(image: Image, lsda: int, function_start: int) -> tuple[int, ...]:
    """Vaddrs of the landing pads, ascending; empty where the table cannot be read."""
    reader = Reader(image.read(lsda, _LIMIT_BYTES), lsda)
    pads: set[int] = set()
    try:
        encoding = reader.u8()
        base: int | None = function_start if encoding == DW_EH_PE_OMIT else reader.encoded(encoding)
        if reader.u8() != DW_EH_PE_OMIT:
            reader.uleb()  # distance to the type table
        call_site_encoding = reader.u8()
        size = reader.uleb()
        end = reader.at + size
        while base is not None and reader.at < end:
            for _ in range(2):  # start and length of the guarded range
                reader.encoded(call_site_encoding)
            pad = reader.encoded(call_site_encoding)
            reader.uleb()  # action
            if pad:
                pads.add(base + pad)
    except IndexError:
        return ()
    return tuple(sorted(pads))
