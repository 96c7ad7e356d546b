"""Words in a range: what is found by columns is what is found word by word."""

from __future__ import annotations

import struct

from hypothesis import example, given
from hypothesis import strategies as st

from flicker_aot.discover.words import words_between

LOW, HIGH = 0xB6F000, 0x2600500
NEAR = st.sampled_from([LOW, HIGH, 0, 1 << 24, 1 << 32, 0xB60000, 0x2000000, 0x2600000]).flatmap(
    lambda value: st.integers(max(0, value - 2), value + 2)
)
WORD = st.one_of(NEAR, st.integers(0, 1 << 26), st.integers(0, (1 << 64) - 1))


@given(words=st.lists(WORD), lead=st.integers(0, 9), tail=st.integers(0, 7))
@example(words=[], lead=0, tail=0)
def test_all_words_of_the_range_and_no_others(words: list[int], lead: int, tail: int) -> None:
    """Values at every border of a column, and whatever stands before and behind."""
    data = b"\x01" * lead + struct.pack(f"<{len(words)}Q", *words) + b"\xb7" * tail
    found = words_between(data, lead, len(data), LOW, HIGH)
    assert found == {word for word in words if LOW <= word < HIGH}


@given(words=st.lists(WORD))
def test_a_range_above_four_gigabytes(words: list[int]) -> None:
    """There the upper half may be anything."""
    data = struct.pack(f"<{len(words)}Q", *words)
    low, high = (1 << 32) - 1, 1 << 40
    assert words_between(data, 0, len(data), low, high) == {word for word in words if low <= word < high}
