"""Which bytes of the input are spoken for. In: ranges of vaddrs. Out: whether a range is free, and what holds it."""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import NamedTuple


class Claim(NamedTuple):
    """[start, end) belongs to ``owner`` (a site's vaddr), or to nobody who may be patched (``owner`` None)."""

    start: int
    end: int
    owner: int | None
    what: str


class Claims:
    """Disjoint claims, kept in address order; the planner's only changing state."""

    def __init__(self) -> None:
        self._claims: list[Claim] = []
        self._longest = 0

    def add(self, claim: Claim) -> None:
        insort(self._claims, claim, key=lambda c: c.start)
        self._longest = max(self._longest, claim.end - claim.start)

    def holder(self, start: int, end: int, owner: int) -> Claim | None:
        """A claim of anybody but ``owner`` on a byte of [start, end), or None."""
        at = bisect_right(self._claims, start, key=lambda c: c.start)
        while at and self._claims[at - 1].start > start - self._longest:
            at -= 1
        while at < len(self._claims) and self._claims[at].start < end:
            claim = self._claims[at]
            if claim.end > start and claim.owner != owner:
                return claim
            at += 1
        return None
