"""How a file is patched when it is mapped. In: nothing. Out: values made by layout for ``pipeline``, used by layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .layout import Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Bytes of a file that are replaced, same length. ``vaddr``: where they are mapped."""

    vaddr: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """What the rewriting of a file as a client comes to, without the file. ``changes``: in address order; none where
    nothing is to be hooked. ``build_id``: as the runtime finds it; b"" if it does not; then ``digest`` tells the file.

    ``low``, ``span``: vaddr and bytes of the pages of its image; ``first_offset``: of the file, mapped at ``low``;
    ``is_aligned``: segments want more than a page, and the loader reserves addresses for such.
    ``runs``: (vaddr, bytes) of pages as they are to be, where several in a row change. ``r``, ``rx``: likewise the
    segments of the appended block.
    """

    path: Path
    size_bytes: int
    sha256: str
    build_id: bytes
    digest: tuple[int, int]
    low: int
    span: int
    first_offset: int
    is_aligned: bool = False
    changes: tuple[Change, ...] = ()
    runs: tuple[tuple[int, bytes], ...] = ()
    r: tuple[int, bytes] = (0, b"")
    rx: tuple[int, bytes] = (0, b"")


def change_of(edit: Edit, data: bytes) -> Change:
    """``data``: of the file."""
    return Change(vaddr=edit.vaddr, old=data[edit.offset : edit.offset + len(edit.data)], new=edit.data)
