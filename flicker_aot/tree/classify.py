"""What a regular file is. In: its path. Out: ``Facts``, from its first bytes or, for an ELF file, its headers."""

from __future__ import annotations

from pathlib import Path

from ..elf.dynamic import soname_of
from ..elf.heads import read_heads
from ..elf.notes import build_id_of
from ..elf.read import interpreter_of, is_library, read_headers
from ..errors import InputError
from ..model.image import ET_DYN, ET_REL
from ..model.tree import Facts, Kind


def classify(path: Path) -> Facts:
    """OSError where the file cannot be read."""
    heads = read_heads(path)
    return classify_elf(path, heads) if heads else Facts(kind=Kind.OTHER)


def classify_elf(path: Path, data: bytes) -> Facts:
    """Of an ELF file's bytes, or of its ``read_heads``. ``path`` is for messages."""
    try:
        image = read_headers(path, data)
    except InputError as error:
        is_object = data[16:18] == ET_REL.to_bytes(2, "little")
        reason = str(error).removeprefix(f"{path}: ")
        return Facts(kind=Kind.OBJECT if is_object else Kind.FOREIGN, refusal=reason)
    kind = Kind.LIBRARY if is_library(image) else Kind.PROGRAM if image.is_dynamic else Kind.STATIC
    return Facts(
        kind=kind,
        interpreter=interpreter_of(image),
        soname=soname_of(image) if image.type == ET_DYN else None,
        build_id=build_id_of(image),
    )
