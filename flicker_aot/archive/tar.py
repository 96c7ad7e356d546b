"""tar. In: a ``Stream``. Out: its regular files. Sources: POSIX.1-2017 pax "ustar interchange format"; GNU tar manual.

Read: ustar, pax (path, size), GNU long names and base-256 sizes, V7. Sparse files are named and not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .stream import ArchiveError, Stream

BLOCK: Final = 512
_NAME_LIMIT: Final = 1 << 20  # bytes of a pax header or a long name
_REGULAR: Final = (b"0", b"\0", b"7")
_DIRECTORY: Final = b"5"
_WITHOUT_DATA: Final = (b"1", b"2", b"3", b"4", b"5", b"6")
_ZEROS: Final = bytes(BLOCK)


class Member(NamedTuple):
    """``data`` is there until the next member is asked for; ``refusal``: why it is not. ``is_folder``: no file."""

    name: str
    size: int
    data: Stream
    is_regular: bool = True
    is_folder: bool = False
    refusal: str = ""


def is_tar(head: bytes) -> bool:
    """Whether a header with the right checksum stands at the start."""
    return len(head) >= BLOCK and head[:1] != b"\0" and _checksum(head[:BLOCK])


def _checksum(header: bytes) -> bool:
    try:
        stated = _number(header[148:156])
    except ArchiveError:
        return False
    field = header[148:156]
    unsigned = sum(header) - sum(field) + 8 * 32
    signed = unsigned - 256 * sum(b >= 128 for b in header[:148] + header[156:])  # of some old tars
    return stated in (unsigned, signed)


def _number(field: bytes) -> int:
    """Octal text, or GNU's base-256 where the highest bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    text = field.split(b"\0")[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise ArchiveError(f"damaged: expected an octal number, found {text!r}") from None


def members(stream: Stream) -> Iterator[Member]:
    """Every member, files and others. ArchiveError where the archive is damaged or cut short."""
    common: dict[str, bytes] = {}
    special: dict[str, bytes] = {}
    while True:
        at = stream.position
        header = stream.read(BLOCK)
        if not header or header == _ZEROS:
            return
        if len(header) < BLOCK:
            raise ArchiveError(f"cut short: a header at {at:#x} has {len(header)} of {BLOCK} bytes")
        if not _checksum(header):
            raise ArchiveError(f"damaged: the checksum of the header at {at:#x} is wrong")
        kind, size = header[156:157], _number(header[124:136])
        if kind in (b"x", b"g", b"L", b"K"):
            if size > _NAME_LIMIT:
                raise ArchiveError(f"the header at {at:#x} has {size} bytes of names, more than {_NAME_LIMIT}")
            text = stream.exactly(size, f"the header at {at:#x}")
            stream.skip(-size % BLOCK)
            if kind == b"L":
                special["path"] = text.rstrip(b"\0")
            elif kind == b"x":
                special |= _pax(text, at)
            elif kind == b"g":
                common |= _pax(text, at)
            continue
        attributes = common | special
        special = {}
        size = _pax_size(attributes, size, at)
        data_size = 0 if kind in _WITHOUT_DATA else size
        refusal = ""
        if kind == b"S":
            _skip_sparse_map(stream, header)
        if kind == b"S" or any(key.startswith("GNU.sparse.") for key in attributes):
            refusal = "a sparse member: not read"
        name = attributes.get("GNU.sparse.name") or attributes.get("path") or _name(header)
        end = stream.position + data_size + -data_size % BLOCK
        yield Member(
            name=name.decode("utf-8", "surrogateescape"),
            size=data_size,
            data=stream.part(data_size),
            is_regular=kind in _REGULAR or kind == b"S",
            is_folder=kind == _DIRECTORY,
            refusal=refusal,
        )
        stream.skip(end - stream.position)


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax(text: bytes, at: int) -> dict[str, bytes]:
    """Records "LENGTH KEY=VALUE\\n"; LENGTH is that of the whole record."""
    found: dict[str, bytes] = {}
    position = 0
    while position < len(text):
        space = text.find(b" ", position, position + 12)
        length = text[position:space]
        end = position + int(length) if space > 0 and length.isdigit() else 0
        key, equals, value = text[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(text) or not equals:
            raise ArchiveError(f"damaged: the pax header at {at:#x}")
        found[key.decode("utf-8", "replace")] = value
        position = end
    return found


def _pax_size(attributes: dict[str, bytes], size: int, at: int) -> int:
    text = attributes.get("size")
    if text is None:
        return size
    if not text.isdigit() or len(text) > 20:
        raise ArchiveError(f"damaged: the size of the member at {at:#x}: {text[:20]!r}")
    return int(text)


def _skip_sparse_map(stream: Stream, header: bytes) -> None:
    """GNU's old sparse format: the map goes on in blocks of its own."""
    is_extended = header[482]
    while is_extended:
        is_extended = stream.exactly(BLOCK, "a sparse map")[504]
