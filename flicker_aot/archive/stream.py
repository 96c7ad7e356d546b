"""Bytes that come by once. In: a function that reads. Out: a ``Stream``: look ahead, read, skip.

Archives are read so, whatever they are in: nothing is unpacked, and what is held is a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..errors import InputError

BLOCK: Final = 1 << 18


class ArchiveError(InputError):
    """What an archive says is wrong or not supported; the message does not name it."""


class TooMuch(ArchiveError):
    """A bound of the whole archive is reached: nothing more of it is read."""


class Stream:
    """``read_some(n)``: up to n bytes, b"" at the end. ``skip_some(n)``: goes n bytes on without reading, if it can."""

    def __init__(self, read_some: Callable[[int], bytes], skip_some: Callable[[int], None] | None = None) -> None:
        self._read_some = read_some
        self._skip_some = skip_some
        self._ahead = b""
        self.position = 0

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes, which stay; fewer at the end."""
        while len(self._ahead) < count:
            block = self._read_some(max(BLOCK, count - len(self._ahead)))
            if not block:
                break
            self._ahead += block
        return self._ahead[:count]

    def read_some(self, count: int) -> bytes:
        """Up to ``count`` bytes, which is more than 0; b"" at the end alone."""
        if self._ahead:
            found, self._ahead = self._ahead[:count], self._ahead[count:]
        else:
            found = self._read_some(count)
        self.position += len(found)
        return found

    def read(self, count: int) -> bytes:
        """``count`` bytes; fewer at the end. The caller bounds ``count``."""
        parts = []
        while count > 0:
            part = self.read_some(min(count, BLOCK))
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def exactly(self, count: int, what: str) -> bytes:
        """``count`` bytes; ArchiveError where there are fewer."""
        found = self.read(count)
        if len(found) != count:
            raise ArchiveError(f"cut short: {what} needs {count} bytes, {len(found)} are there")
        return found

    def skip(self, count: int) -> None:
        """ArchiveError where there are fewer; a stream that can skip says so at the next read."""
        if self._ahead and count:
            count -= len(self.read_some(count))
        if count and self._skip_some is not None:
            self._skip_some(count)
            self.position += count
            return
        while count > 0:
            part = self.read_some(min(count, BLOCK))
            if not part:
                raise ArchiveError(f"cut short: {count} bytes are missing")
            count -= len(part)

    def part(self, count: int) -> Stream:
        """The next ``count`` bytes as a stream of their own. Ends this one early: ArchiveError."""
        left = count

        def read_some(wanted: int) -> bytes:
            nonlocal left
            found = self.read_some(min(wanted, left)) if left else b""
            if left and not found:
                raise ArchiveError(f"cut short: {left} of {count} bytes are missing")
            left -= len(found)
            return found

        def skip_some(wanted: int) -> None:
            nonlocal left
            if wanted > left:
                raise ArchiveError(f"cut short: {wanted - left} bytes are missing")
            self.skip(wanted)
            left -= wanted

        return Stream(read_some, skip_some)
