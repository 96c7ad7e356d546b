"""The import rules of docs/design.md, held by a walk over every module's syntax tree."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flicker_aot

ROOT = Path(flicker_aot.__file__).parent
STAGES = ("discover", "plan", "layout", "emit", "verify", "report")

# What each part of the package may import of the package; elf, x86 and model are foundations, not stages.
ALLOWED = {
    "model": {"model"},
    "errors": set[str](),
    "outputs": {"errors"},
    "syscalls": {"errors"},
    "elf": {"elf", "model", "errors"},
    "x86": {"x86", "model", "errors"},
    "discover": {"discover", "elf", "x86", "model", "errors"},
    "plan": {"plan", "elf", "x86", "model", "errors"},
    "layout": {"layout", "elf", "x86", "model", "errors", ""},
    "emit": {"emit", "model", "errors"},
    "verify": {"verify"},
    "report": {"report", "model", "errors", "syscalls"},
    "toolchain": {"hook_check", "model", "errors"},
    "hook_check": {"x86", "model", "errors"},
    # Commands over many files: they see stages through pipeline alone.
    "tree": {"tree", "elf", "model", "errors", "pipeline", "report"},
    "archive": {"archive", "model", "errors"},
    "corpus": {"corpus", "archive", "tree", "elf", "model", "errors", "pipeline", "report", "toolchain", ""},
    "rootfs": {"rootfs", "tree", "model", "errors", "pipeline", "toolchain", ""},
    "arguments": {"model", "errors", "toolchain", ""},
    "launch": {"launch", "bundle", "single", "model", "errors", "pipeline", "toolchain"},
    "bundle": {"bundle", "tree", "elf", "model", "errors", "pipeline", "toolchain", ""},
    "single": {"single", "bundle", "tree", "elf", "model", "errors", "pipeline", "report"},
}
IMPORTERS = {
    "capstone": {"x86/decode.py", "verify/decode.py"},
    "keystone": {"x86/assemble.py"},
    "networkx": {"discover/graph.py"},
    "lief": {"verify/second_reader.py"},
    "distributed": {"corpus/cluster.py"},
    "pyarrow": {"report/corpus_parquet.py"},
    "zstandard": {"archive/compressed.py"},
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def part_of(module: Path) -> str:
    """ "discover" for discover/graph.py, "cli" for cli.py, "" for the package's own __init__."""
    first = module.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(module: Path) -> Iterator[tuple[str, bool]]:
    """(absolute name of an imported module, whether it is imported when ``module`` is)."""
    package = ("flicker_aot", *module.relative_to(ROOT).parts[:-1])
    tree = ast.parse(module.read_text())
    late = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    for branch in ast.walk(tree):
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING":
            late |= {id(n) for n in ast.walk(branch)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in late
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            yield ".".join(filter(None, (base, node.module))), id(node) not in late
            for alias in node.names:
                yield ".".join(filter(None, (base, node.module, alias.name))), id(node) not in late


def imported_parts(module: Path) -> set[str]:
    """Parts of this package that ``module`` imports; "" for its __init__ (the version)."""
    names = {name for name, _ in imports(module) if name.split(".")[0] == "flicker_aot"}
    parts = {[*name.split("."), ""][1] for name in names}
    return {"" if part.startswith("__") else part for part in parts}


def test_walk_sees_imports() -> None:
    """The walk that these tests rest on finds relative, absolute and late imports where there are some."""
    assert "emit" in imported_parts(ROOT / "pipeline.py")
    assert ("lief", False) in set(imports(ROOT / "verify" / "second_reader.py"))
    assert ("capstone", True) in set(imports(ROOT / "verify" / "decode.py"))


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_parts_import_only_what_they_may(part: str) -> None:
    """A stage imports no other stage, foundations import no stage, and the verifier nothing but itself."""
    for module in modules():
        if part_of(module) == part:
            # "from .. import x" names the package itself besides x.
            found = imported_parts(module) - {""} | ({""} & ALLOWED[part])
            assert found <= ALLOWED[part], f"{module.relative_to(ROOT)} imports {sorted(found - ALLOWED[part])}"


def test_every_part_has_a_rule() -> None:
    """A new part of the package needs a rule here; only these see all stages."""
    unruled = {part_of(m) for m in modules()} - set(ALLOWED)
    assert unruled == {"", "cli", "pipeline", "__main__"}


def test_only_pipeline_sees_the_stages() -> None:
    """cli reaches stages only through pipeline, but for verify and report, whose results it shows."""
    for module in modules():
        if part_of(module) in ("cli", "__main__", ""):
            assert not imported_parts(module) & (set(STAGES) - {"verify", "report"}), module


@pytest.mark.parametrize("library", sorted(IMPORTERS))
def test_libraries_have_one_adapter(library: str) -> None:
    """Each library is imported by its adapter modules and by nobody else."""
    found = {
        m.relative_to(ROOT).as_posix() for m in modules() if library in {name.split(".")[0] for name, _ in imports(m)}
    }
    assert found == IMPORTERS[library]


def test_rich_only_in_report() -> None:
    """rich is imported by report/ alone."""
    found = {part_of(m) for m in modules() if "rich" in {name.split(".")[0] for name, _ in imports(m)}}
    assert found == {"report"}


def test_only_cli_prints_or_exits() -> None:
    """No module but cli calls print or exit, or touches the standard streams (__main__ only passes on the code)."""
    for module in modules():
        if part_of(module) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "exit", "quit", "input", "breakpoint"), (module, node.lineno)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                place = (node.value.id, node.attr)
                assert place not in {("sys", "exit"), ("sys", "stdout"), ("sys", "stderr"), ("os", "_exit")}, module


def test_modules_say_what_they_are() -> None:
    """Every module starts with a docstring that says what goes in and what comes out (not packages, entry points)."""
    for module in modules():
        text = ast.get_docstring(ast.parse(module.read_text()))
        assert text, f"{module.relative_to(ROOT)} has no docstring"
        if part_of(module) and module.name not in ("__init__.py", "__main__.py", "errors.py"):
            assert "In:" in text and "Out:" in text, f"{module.relative_to(ROOT)}: no In: and Out: in its docstring"


def test_help_imports_nothing_heavy() -> None:
    """``--help`` loads none of the libraries and none of the stages."""
    import subprocess

    heavy = ("lief", "rich", "networkx", "keystone", "capstone", "flicker_aot.pipeline")
    code = "import sys; from flicker_aot import cli; from flicker_aot.arguments import make_parser as p; p(); "
    code += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT.parent)}
    )
    assert done.stdout.strip() == "[]"
