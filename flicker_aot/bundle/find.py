"""What belongs into a bundle. In: a program, patterns of further files. Out: ``Found``; nothing is written here.

The closure is resolved by rules (elf/closure.py), not by running ``ld.so --list``: no code of the bundled files runs,
and every variant for other processors (glibc-hwcaps) comes along. tests/bundle compares the two.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..elf.closure import closure_of, library_folders
from ..elf.heads import read_heads
from ..elf.read import interpreter_of, read_headers, read_image
from ..errors import InputError, UsageError
from ..model.image import Image
from ..model.options import BundlePlace, Role
from ..model.tree import Facts, Kind, Problem
from ..pipeline import read_file
from ..tree.classify import classify

PROGRAMS: Final = "bin"
FILES: Final = "files"
_PRELOAD: Final = Path("/etc/ld.so.preload")
_OF_LIBC: Final = "fopen"  # what no loader defines that is a loader alone
_HWCAPS: Final = "glibc-hwcaps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file. ``original``: absolute, no symbolic link in it; ``aliases``: paths by which a loader may look for it.

    ``copy``: below the bundle's folder. ``role``: None for what cannot be rewritten.
    """

    original: Path
    copy: str
    aliases: tuple[str, ...]
    facts: Facts
    role: Role | None
    place: BundlePlace | None


def find_members(program: Path, patterns: Sequence[str], *, follows: bool) -> tuple[list[Member], list[Problem]]:
    """The program first; warnings. InputError for what the program cannot be started without, UsageError for a pattern
    that names nothing."""
    images: dict[Path, Image] = {}
    named: dict[Path, Facts] = {}  # what has no closure of its own
    missing: dict[tuple[Path, str], None] = {}

    def add(path: Path, *, is_needed: bool = False) -> None:
        note = None if is_needed else lambda user, name: missing.setdefault((user, name))
        for image in closure_of(_read(path), _read, note):
            images.setdefault(image.path, image)

    main = Path(os.path.realpath(program))
    facts = classify(main) if main.is_file() else None
    if facts is None:
        raise InputError(f"{program}: no such file")
    if facts.kind not in (Kind.STATIC, Kind.PROGRAM):
        raise InputError(f"{program}: {facts.refusal or f'a program expected, found a {facts.kind.value}'}")
    add(main, is_needed=True)
    for path in (*_preloaded(), *(p for pattern in patterns for p in _matches(pattern))):
        real = Path(os.path.realpath(path))
        facts = classify(real)
        if facts.kind.is_rewritable:
            add(real)
        elif facts.kind.is_elf:
            named[real] = facts
    for image in list(images.values()):
        for variant in _variants(image.path):
            add(variant)
    all_facts = {path: classify(path) for path in images} | named
    members = list(_members(main, program.name, all_facts, images, follows=follows))
    there = {name for member in members for name in (member.original.name, member.facts.soname)}
    warnings = [
        Problem(
            path=str(user), message=f"needs {name}, which is in none of the folders that ld.so searches", exit_code=0
        )
        for user, name in missing
        if name not in there
    ]
    return members, warnings


def _read(path: Path) -> Image:
    try:
        return read_headers(path, read_heads(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _members(
    main: Path, name: str, facts: dict[Path, Facts], images: dict[Path, Image], *, follows: bool
) -> Iterator[Member]:
    names = {path: interpreter_of(image) for path, image in images.items()}
    interpreters = {Path(os.path.realpath(n)) for n in names.values() if n is not None}
    for path, fact in facts.items():
        copy = f"{PROGRAMS}/{name}" if path == main else f"{FILES}{path}"
        role = _role(path, fact, interpreters)
        interpreter = names.get(path)
        starts_by = None
        if role is Role.PROGRAM and interpreter is not None:
            starts_by = f"{FILES}{os.path.realpath(interpreter)}"
        is_libc = role is Role.INTERPRETER and _is_libc(path)
        place = BundlePlace(depth=copy.count("/") + 1, interpreter=starts_by, follows=follows, is_libc=is_libc)
        yield Member(
            original=path,
            copy=copy,
            aliases=tuple(_aliases(path, fact, interpreter)),
            facts=fact,
            role=role,
            place=None if role in (None, Role.CLIENT) else place,
        )


def _is_libc(path: Path) -> bool:
    image = read_image(path, read_file(path))
    return any(image.symbol_name(symbol) == _OF_LIBC for symbol in image.symbols)


def _role(path: Path, facts: Facts, interpreters: set[Path]) -> Role | None:
    if not facts.kind.is_rewritable:
        return None
    if path in interpreters:
        return Role.INTERPRETER
    return {Kind.STATIC: Role.HOST, Kind.PROGRAM: Role.PROGRAM}.get(facts.kind, Role.CLIENT)


def _aliases(path: Path, facts: Facts, interpreter: str | None) -> list[str]:
    """The paths that lead to the file by its own name and by DT_SONAME, in its folder and in what is a link to that."""
    folders = [str(path.parent)]
    if path.is_relative_to("/usr") and _is_same(Path("/", *path.parts[2:]), path):
        folders.append(str(Path("/", *path.parts[2:]).parent))
    names = dict.fromkeys(filter(None, (path.name, facts.soname)))
    found = [f"{folder}/{name}" for folder in folders for name in names]
    return [alias for alias in found if _is_same(Path(alias), path)]


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _preloaded() -> list[Path]:
    """What ld.so loads into every process (ld.so(8), FILES)."""
    try:
        text = _PRELOAD.read_text()
    except OSError:
        return []
    return [Path(p) for p in text.replace(":", " ").split() if p.startswith("/") and Path(p).is_file()]


def _matches(pattern: str) -> Iterable[Path]:
    """Files that a pattern names; of a folder all that is in it. A name without a slash that is not in the working
    folder is looked for where ld.so looks for libraries, and in PATH."""
    places = [pattern]
    if "/" not in pattern:
        folders = [*library_folders(), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
        places += [str(Path(glob.escape(folder), pattern)) for folder in folders if folder]
    for place in places:
        paths = [Path(p) for p in sorted(glob.glob(place, recursive=True))]  # noqa: PTH207 -- from anywhere
        files = [f for p in paths for f in (sorted(p.rglob("*")) if p.is_dir() else [p]) if f.is_file()]
        if files:
            return files
    raise UsageError(f"--include {pattern}: no such file, or no regular one")


def _variants(path: Path) -> Iterator[Path]:
    """The same library for newer processors, which ld.so prefers where it can (glibc: elf/dl-hwcaps.c)."""
    for folder in sorted((path.parent / _HWCAPS).glob("x86-64-v*")):
        variant = folder / path.name
        if variant.is_file():
            yield Path(os.path.realpath(variant))
