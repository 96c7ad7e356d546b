"""Words of a large file that lie in a range of values. In: bytes, file range, bounds. Out: the words.

A program that is not position-independent has tens of megabytes of data and may have an address in each word. Python
looks at one word in 50 ns; columns of bytes (each word's fifth byte, sixth, ...) are cut, translated and combined as
large integers in 1 ns a byte. These leave over what is worth a look.
"""

from __future__ import annotations

import re
import struct
from typing import Final

_WORD: Final = struct.Struct("<Q")
_ZERO: Final = re.compile(rb"\0")
_UPPER_HALF: Final = (4, 5, 6, 7)


def words_between(data: bytes, start: int, end: int, low: int, high: int) -> set[int]:
    """The 8-byte words of ``data[start:end]``, from ``start`` on, that are at least ``low`` and below ``high``."""
    end -= (end - start) % 8
    if high > 1 << 32:
        return {word for (word,) in _WORD.iter_unpack(memoryview(data)[start:end]) if low <= word < high}
    lowest, highest = low >> 24, high - 1 >> 24
    fourth, third = data[start + 3 : end : 8], data[start + 2 : end : 8]
    # A byte that is not zero: the word is out of the range.
    out = _column(fourth, {*range(256)} - {*range(lowest, highest + 1)})
    out |= _column(fourth, {lowest}) & _column(third, {*range(low >> 16 & 0xFF)})
    for byte in _UPPER_HALF:
        out |= int.from_bytes(data[start + byte : end : 8], "little")
    left = _ZERO.finditer(out.to_bytes((end - start) // 8, "little"))
    return {word for match in left if low <= (word := _WORD.unpack_from(data, start + 8 * match.start())[0]) < high}


def _column(column: bytes, values: set[int]) -> int:
    """A byte of 1 for each of ``column`` that is one of ``values``, else 0; as one integer."""
    return int.from_bytes(column.translate(bytes(value in values for value in range(256))), "little")
