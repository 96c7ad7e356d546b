"""The libraries that a dynamic program needs. In: a file's path. Out: the paths of its closure, as ld.so finds them.

Sources: ld.so(8), "ld.so searches for the dependencies"; glibc: elf/dl-load.c; musl: ldso/dynlink.c. The environment
(LD_LIBRARY_PATH, LD_PRELOAD) and what dlopen loads are left out; glibc's cache is asked through ldconfig -p's file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from ..errors import InputError
from ..model.image import PT_INTERP, Image
from .imports import needed, search_paths

_CACHE: Final = Path("/etc/ld.so.cache")
_CACHE_MAGIC: Final = b"glibc-ld.so.cache1.1"
_CACHE_HEADER: Final = 48  # bytes of struct cache_file_new before its entries
_CACHE_ENTRY: Final = 24  # bytes of struct file_entry_new
_X86_64_FLAGS: Final = 0x0303  # FLAG_ELF_LIBC6 | FLAG_X8664_LIB64 (glibc: sysdeps/generic/ldconfig.h)
_DEFAULT_FOLDERS: Final = (
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
)
_MUSL_FOLDERS: Final = ("/lib", "/usr/local/lib", "/usr/lib")
_MUSL_PATHS: Final = Path("/etc/ld-musl-x86_64.path")
_NAMES_LIMIT: Final = 4096  # libraries of one program; more is a loop or an attack


Missing = Callable[[Path, str], None]


def closure_of(image: Image, read: Callable[[Path], Image], missing: Missing | None = None) -> list[Image]:
    """``image`` with its interpreter and every library that DT_NEEDED names, breadth first, each file once.

    InputError where one of them is found nowhere, as ld.so would say; with ``missing`` that is called instead, with the
    file that needs it and the name: what is loaded by dlopen may need what its program has loaded already.
    """
    found = {os.path.realpath(image.path): image}
    interpreter = _interpreter(image)
    is_musl = interpreter is not None and "musl" in interpreter.name
    work: list[tuple[Image, tuple[str, ...]]] = [(image, ())]
    if interpreter is not None:
        _add(found, work, interpreter, read, ())
    by_name: set[str] = {interpreter.name} if interpreter is not None else set()
    while work:
        user, inherited = work.pop(0)
        rpath, runpath = search_paths(user)
        # DT_RPATH holds for what the libraries need in turn, DT_RUNPATH does not.
        chain = (*_expanded(rpath, user.path), *inherited)
        for name in needed(user):
            if name in by_name or len(by_name) > _NAMES_LIMIT:
                continue
            by_name.add(name)
            path = next(_places(name, (*chain, *_expanded(runpath, user.path)), is_musl), None)
            if path is None:
                if is_musl and name.startswith("libc."):
                    continue  # musl's loader is its C library
                if missing is None:
                    raise InputError(f"{user.path}: needs {name}, which is in none of the folders that ld.so searches")
                missing(user.path, name)
                continue
            _add(found, work, path, read, chain)
    return list(found.values())


def _add(
    found: dict[str, Image],
    work: list[tuple[Image, tuple[str, ...]]],
    path: Path,
    read: Callable[[Path], Image],
    chain: tuple[str, ...],
) -> None:
    real = os.path.realpath(path)
    if real not in found:
        found[real] = read(Path(real))
        work.append((found[real], chain))


def _interpreter(image: Image) -> Path | None:
    segment = next((s for s in image.segments if s.type == PT_INTERP), None)
    if segment is None:
        return None
    text = image.data[segment.offset : segment.offset + segment.filesz].partition(b"\0")[0]
    path = Path(os.fsdecode(text))
    if not path.is_file():
        raise InputError(f"{image.path}: its interpreter {path} does not exist")
    return path


def _expanded(folders: tuple[str, ...], user: Path) -> tuple[str, ...]:
    origin = str(Path(os.path.realpath(user)).parent)
    found = []
    for folder in folders:
        for token, value in (("ORIGIN", origin), ("LIB", "lib/x86_64-linux-gnu"), ("PLATFORM", "x86_64")):
            folder = folder.replace(f"${{{token}}}", value).replace(f"${token}", value)
        found.append(folder)
    return tuple(found)


def _places(name: str, folders: tuple[str, ...], is_musl: bool) -> Iterator[Path]:
    """The files that ``name`` may be, in ld.so's order."""
    if "/" in name:
        candidates = [Path(name)]
    else:
        candidates = [Path(folder) / name for folder in folders]
        if is_musl:
            candidates += [Path(folder) / name for folder in _musl_folders()]
        else:
            candidates += [Path(path) for path in (_cached().get(name),) if path]
            candidates += [Path(folder) / name for folder in _DEFAULT_FOLDERS]
    return (path for path in candidates if _is_loadable(path))


def library_folders() -> tuple[str, ...]:
    """Where ld.so finds libraries that no file names a folder for: those of its cache's entries, and the default."""
    return tuple(dict.fromkeys([*(str(Path(p).parent) for p in _cached().values()), *_DEFAULT_FOLDERS]))


def _is_loadable(path: Path) -> bool:
    """Whether it is a 64-bit x86-64 ELF file: ld.so goes on searching behind others."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return False
    return head[:5] == b"\x7fELF\x02" and head[18:20] == b"\x3e\x00"


def _musl_folders() -> tuple[str, ...]:
    try:
        text = _MUSL_PATHS.read_text()
    except OSError:
        return _MUSL_FOLDERS
    return tuple(p for p in text.replace(":", "\n").split("\n") if p)


@cache
def _cached() -> dict[str, str]:
    """Library name -> path, from glibc's cache (glibc: sysdeps/generic/dl-cache.h); empty where there is none."""
    try:
        data = _CACHE.read_bytes()
    except OSError:
        return {}
    start = data.find(_CACHE_MAGIC)
    if start < 0:
        return {}
    count = int.from_bytes(data[start + 20 : start + 24], "little")
    found: dict[str, str] = {}
    for index in range(min(count, len(data) // _CACHE_ENTRY)):
        at = start + _CACHE_HEADER + index * _CACHE_ENTRY
        flags, key, value = (int.from_bytes(data[at + 4 * n : at + 4 * n + 4], "little") for n in range(3))
        hwcap = int.from_bytes(data[at + 16 : at + 24], "little")
        if flags == _X86_64_FLAGS and hwcap == 0:
            found.setdefault(_string(data, start + key), _string(data, start + value))
    return found


def _string(data: bytes, at: int) -> str:
    return os.fsdecode(data[at : data.find(b"\0", at)])
