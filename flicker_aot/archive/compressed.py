"""Compressed streams. In: a ``Stream`` and its format. Out: a ``Stream`` of what is in it, in bounded steps.

Each step makes a block at most, and the dictionaries that formats ask for are bounded: a file that unpacks to
something huge costs time (``members`` bounds that), no memory.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Final

import zstandard

from .stream import BLOCK, ArchiveError, Stream

_MAGICS: Final = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x5d\0\0", "lzma"),
)
_DICTIONARY: Final = 192 << 20  # bytes; xz -9 needs 65 MiB, zstd --long 128
_WINDOW: Final = 128 << 20
# A decompressor of zstd gives all that its input holds: four bytes may be a block of 128 KiB.
_ZSTD_STEP: Final = 512


def format_of(head: bytes) -> str | None:
    """The compression that the first bytes of a file are those of."""
    for magic, name in _MAGICS:
        if head.startswith(magic):
            return None if name == "lzma" and not _is_lzma(head) else name
    return None


def _is_lzma(head: bytes) -> bool:
    """The old format has no magic: a dictionary of 2^n bytes, and a size that is unknown or below 2^40."""
    size = int.from_bytes(head[5:13], "little")
    dictionary = int.from_bytes(head[1:5], "little")
    return len(head) >= 13 and dictionary.bit_count() == 1 and (size == 2**64 - 1 or size < 1 << 40)


def decompressed(source: Stream, name: str) -> Stream:
    """``name``: of ``format_of``. Reading raises ArchiveError for damaged or cut data."""
    return Stream({"gzip": _Gzip, "bzip2": _Bzip2, "xz": _Xz, "lzma": _Lzma, "zstd": _Zstd}[name](source).read_some)


class _Reader:
    """What formats have in common: streams one behind the other are one, zeros may follow (tapes)."""

    name = ""

    def __init__(self, source: Stream) -> None:
        self._source = source
        self._input = b""
        self._is_open = self._is_later = False

    def read_some(self, count: int) -> bytes:
        while True:
            if not self._is_open:
                if not self._begin():
                    return b""
                self._is_open = True
            try:
                found = self._step(min(count, BLOCK))
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError, EOFError) as error:
                if isinstance(error, ArchiveError):
                    raise
                raise ArchiveError(f"damaged: {self.name}: {error}") from error
            if found:
                return found

    def _begin(self) -> bool:
        """Whether another stream follows."""
        while not self._input.strip(b"\0"):
            self._input = self._source.read_some(BLOCK)
            if not self._input:
                return False
        if self._is_later:
            self._input = self._input.lstrip(b"\0")
            if format_of(self._input + self._source.peek(16)) != self.name:
                return False  # something else behind it
        self._is_later = True
        self._start()
        return True

    def _more(self) -> bytes:
        block = self._source.read_some(BLOCK)
        if not block:
            raise ArchiveError(f"cut short: the {self.name} stream does not end")
        return block

    def _start(self) -> None:
        raise NotImplementedError

    def _step(self, count: int) -> bytes:
        raise NotImplementedError

    def _ended(self, unused: bytes) -> None:
        self._input = unused
        self._is_open = False


class _Gzip(_Reader):
    name = "gzip"

    def _start(self) -> None:
        self._object = zlib.decompressobj(wbits=31)

        self._holds_back = False

    def _step(self, count: int) -> bytes:
        given = self._input if self._input or self._holds_back else self._more()
        found = self._object.decompress(given, count)
        self._holds_back = len(found) == count  # there may be more of what it was given
        self._input = self._object.unconsumed_tail
        if self._object.eof:
            self._ended(self._object.unused_data)
        return found


class _Fed(_Reader):
    """bz2 and lzma of the standard library keep their input themselves."""

    def _make(self) -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
        raise NotImplementedError

    def _start(self) -> None:
        self._object = self._make()

    def _step(self, count: int) -> bytes:
        given, self._input = self._input, b""
        if not given and self._object.needs_input:
            given = self._more()
        found = self._object.decompress(given, count)
        if self._object.eof:
            self._ended(self._object.unused_data)
        return found


class _Bzip2(_Fed):
    name = "bzip2"

    def _make(self) -> bz2.BZ2Decompressor:
        return bz2.BZ2Decompressor()


class _Xz(_Fed):
    name = "xz"

    def _make(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY)


class _Lzma(_Fed):
    name = "lzma"

    def _make(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_DICTIONARY)


class _Zstd(_Reader):
    name = "zstd"

    def _start(self) -> None:
        self._object = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self._left = b""

    def _step(self, count: int) -> bytes:
        if self._left:
            found, self._left = self._left[:count], self._left[count:]
        else:
            given = self._input or self._more()
            self._input = given[_ZSTD_STEP:]
            made = self._object.decompress(given[:_ZSTD_STEP])
            found, self._left = made[:count], made[count:]
        if self._object.eof and not self._left:
            self._ended(self._object.unused_data + self._input)
        return found
