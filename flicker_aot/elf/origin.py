"""What a file was made from, and by what. In: an Image with sections and symbols. Out: language and compiler, guessed.

Nothing of it decides how a file is rewritten: it groups a report's lines. A runtime of a language in the file, or a
library of it in DT_NEEDED, is the evidence; .comment names compilers where nobody stripped it (Debian does).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..model.image import SHT_NOBITS, Image
from .imports import needed

UNKNOWN: Final = "unknown"

# Of libraries: the start of a DT_NEEDED name. Languages that use others' runtimes stand first.
_LIBRARIES: Final = (
    ("libHS", "Haskell"),
    ("libasmrun", "OCaml"),
    ("libgnat", "Ada"),
    ("libgo.so", "Go"),
    ("libphobos", "D"),
    ("libgphobos", "D"),
    ("libdruntime", "D"),
    ("libgfortran", "Fortran"),
    ("libflang", "Fortran"),
    ("libobjc", "Objective-C"),
    ("libswift", "Swift"),
    ("libstdc++", "C++"),
    ("libc++", "C++"),
)
# Of the file's own symbols: such names are defined by the language's runtime, or its compiler alone makes them.
_SYMBOLS: Final = (
    (re.compile(r"_ZN.*17h[0-9a-f]{16}E(\.|$)|_R[NMXYIC].*"), "Rust"),
    (re.compile(r"caml_(main|startup|alloc\w*)$"), "OCaml"),
    (re.compile(r"stg_ap_\w+|hs_main$"), "Haskell"),
    (re.compile(r"system__secondary_stack\w*|__gnat_\w+"), "Ada"),
    (re.compile(r"_D\d+\w+|_Dmain$"), "D"),
    (re.compile(r"NimMain\w*$"), "Nim"),
    (re.compile(r"_gfortran_\w+"), "Fortran"),
    (re.compile(r"\$s\w+|swift_\w+"), "Swift"),
    (re.compile(r"_Z\w+"), "C++"),
)
_SYMBOLS_READ: Final = 20_000  # of 100,000s; a language's own are everywhere among them
_COMPILERS: Final = (
    ("rustc", re.compile(r"rustc version (\d[\w.\-]*)")),
    ("GHC", re.compile(r"GHC (\d[\d.]*)")),
    ("clang", re.compile(r"clang version (\d[\d.]*)")),
    ("GCC", re.compile(r"GCC: \(.*\) (\d[\d.]*)")),
)
_COMMENT_LIMIT: Final = 1 << 16
_RUST_PATH: Final = re.compile(rb"/rustc/[0-9a-f]{40}/library/")
# Go: debug/buildinfo; the version's text follows the header since 1.18, before it is behind a pointer.
_GO_MAGIC: Final = b"\xff Go buildinf:"
_GO_INLINE: Final = 2
_GO_TEXT: Final = 32
_GO_VERSION: Final = re.compile(r"go\d[\w.\-]*")


class Origin(NamedTuple):
    language: str
    compiler: str


def origin_of(image: Image) -> Origin:
    """``UNKNOWN`` for what cannot be told; "C" for a file that needs a C library and shows no other language."""
    comments = tuple(_comments(image))
    compiler = next((f"{name} {v}" for name, pattern in _COMPILERS for v in _newest(pattern, comments)), UNKNOWN)
    go = _go_version(image)
    if go is not None:
        return Origin("Go", go)
    language = _language(image, compiler)
    if compiler.startswith(("GCC", "clang")) and language in ("Rust", "Haskell"):
        compiler = UNKNOWN  # of the start files, or of a library in C
    return Origin(language, compiler)


def _language(image: Image, compiler: str) -> str:
    if compiler.startswith("rustc") or _RUST_PATH.search(image.data):
        return "Rust"
    if compiler.startswith("GHC"):
        return "Haskell"
    libraries = needed(image)
    found = [language for start, language in _LIBRARIES if any(name.startswith(start) for name in libraries)]
    if found and found[0] != "C++":
        return found[0]
    names = [image.symbol_name(symbol) for symbol in image.symbols[:_SYMBOLS_READ]]
    for pattern, language in _SYMBOLS:
        if any(pattern.match(name) for name in names):
            return language
    if found:
        return found[0]
    if compiler != UNKNOWN or any(name.startswith(("libc.", "ld-")) for name in libraries):
        return "C"
    return UNKNOWN


def _comments(image: Image) -> Iterator[str]:
    section = image.section(".comment")
    if section is None or section.type == SHT_NOBITS:
        return
    raw = image.data[section.offset : section.offset + min(section.size, _COMMENT_LIMIT)]
    for text in raw.split(b"\0"):
        if text:
            yield text.decode("utf-8", "replace")


def _newest(pattern: re.Pattern[str], comments: tuple[str, ...]) -> Iterator[str]:
    """The highest version among the texts that match, if any does."""
    versions = {match[1].rstrip(".-") for text in comments for match in [pattern.search(text)] if match}
    if versions:
        yield max(versions, key=lambda text: [int(part) for part in re.findall(r"\d+", text)])


def _go_version(image: Image) -> str | None:
    """Such as "go1.19.8"; None for a file that the Go linker did not write."""
    section = image.section(".go.buildinfo")
    at = section.offset if section is not None else image.data.find(_GO_MAGIC)
    if at < 0 or image.data[at : at + len(_GO_MAGIC)] != _GO_MAGIC:
        return None
    flags = image.data[at + len(_GO_MAGIC) + 1 : at + len(_GO_MAGIC) + 2]
    if flags and flags[0] & _GO_INLINE:
        size = image.data[at + _GO_TEXT : at + _GO_TEXT + 1]
        text = image.data[at + _GO_TEXT + 1 : at + _GO_TEXT + 1 + (size[0] if size else 0)].decode("utf-8", "replace")
        match = _GO_VERSION.match(text)
        if match:
            return match[0]
    return "go"
