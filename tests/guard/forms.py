"""A test program in each form that a user's takes. In: its source. Out: it compiled, and it hooked."""

from __future__ import annotations

from pathlib import Path

from ..bundle.bundles import bundle, compile_c
from ..support.rewrite import rewrite

SOURCES = Path(__file__).parent / "src"
FORMS = ("static", "single", "bundle")


def make(
    form: str, source: Path, folder: Path, *options: str, tool: tuple[str | Path, ...] = ("--tool", "count")
) -> tuple[Path, Path]:
    """The original, and it hooked. ``options``: for rewriting, beside the tool."""
    flags = ("-static",) if form == "static" else ()
    original = compile_c(source, folder / "app" / source.stem, *flags)
    if form == "bundle":
        return original, bundle(original, folder / "bundle", *tool, *options).program
    return original, rewrite(original, folder / "out", *tool, *options)
