"""layout/abi.py mirrors runtime_stub/abi.h: the compiler is asked."""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from flicker_aot.bundle import index
from flicker_aot.layout import abi, plans
from flicker_aot.syscalls import NAME_OF
from flicker_aot.x86.assemble import Shape, trampoline_template

from .snippets import ROOT

STRUCTURES: dict[str, Any] = {
    "flk_template": abi.FlkTemplate,
    "flk_config": abi.FlkConfig,
    "flk_site": abi.FlkSite,
    "flk_insn": abi.FlkInsn,
    "flk_trap": abi.FlkTrap,
    "flk_index": index.FlkIndex,
    "flk_file": index.FlkFile,
    "flk_alias": index.FlkAlias,
    "flk_plans": plans.FlkPlans,
    "flk_plan": plans.FlkPlan,
    "flk_run": plans.FlkRun,
    "flk_patch": plans.FlkPatch,
}
CONSTANTS = {
    "FLK_ABI_VERSION": abi.ABI_VERSION,
    "FLK_CONFIG_MAGIC": abi.CONFIG_MAGIC,
    "FLK_F_TRAPS": abi.F_TRAPS,
    "FLK_F_FILLS": abi.F_FILLS,
    "FLK_F_VDSO_KEEP": abi.F_VDSO_KEEP,
    "FLK_F_VDSO_HIDE": abi.F_VDSO_HIDE,
    "FLK_F_VSYSCALL": abi.F_VSYSCALL,
    "FLK_F_CLIENT": abi.F_CLIENT,
    "FLK_F_INTERP": abi.F_INTERP,
    "FLK_F_OWN_GS": abi.F_OWN_GS,
    "FLK_F_NO_FSGSBASE": abi.F_NO_FSGSBASE,
    "FLK_F_PROGRAM": abi.F_PROGRAM,
    "FLK_F_FOLLOW": abi.F_FOLLOW,
    "FLK_F_GUARD_ON": abi.F_GUARD_ON,
    "FLK_F_GUARD_OFF": abi.F_GUARD_OFF,
    "FLK_F_KEPT": abi.F_KEPT,
    "FLK_F_LIBC": abi.F_LIBC,
    "FLK_F_SINGLE": abi.F_SINGLE,
    "FLK_PLANS_MAGIC": plans.PLANS_MAGIC,
    "FLK_PLAN_SELF": plans.PLAN_SELF,
    "FLK_PLAN_ALIGNED": plans.PLAN_ALIGNED,
    "FLK_INDEX_MAGIC": index.MAGIC,
    "FLK_BUILD_ID_BYTES": index.BUILD_ID_BYTES,
    "FLK_FILE_LOADED": index.FILE_LOADED,
    "FLK_FILE_RUN": index.FILE_RUN,
    "FLK_LOADERS_OPEN": abi.F_LOADERS_OPEN,
    "FLK_OWN_GS_BYTES": abi.OWN_GS_BYTES,
    "FLK_OWN_GS_EXTRA": abi.OWN_GS_EXTRA,
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What a C program prints: constants, sizes, and offset and size of every field that Python knows."""
    lines = [f'printf("{name} %lu\\n", (unsigned long)({name}));' for name in CONSTANTS]
    for name, mirror in STRUCTURES.items():
        lines.append(f'printf("{name} %lu\\n", sizeof(struct {name}));')
        for field in fields(mirror):
            of = f"((struct {name} *)0)->{field.name}"
            lines.append(f'printf("{name}.{field.name} %lu\\n", __builtin_offsetof(struct {name}, {field.name}));')
            lines.append(f'printf("{name}.{field.name}.size %lu\\n", sizeof({of}));')
            if field.type != "bytes":  # an array has no sign
                lines.append(f'printf("{name}.{field.name}.signed %d\\n", (__typeof__({of}))-1 < 0);')
    folder = tmp_path_factory.mktemp("abi")
    source = folder / "abi.c"
    source.write_text('#include <stdio.h>\n#include "abi.h"\nint main(void) {\n' + "\n".join(lines) + "\n}\n")
    subprocess.run(["gcc", f"-I{ROOT / 'runtime_stub'}", "-o", folder / "abi", source], check=True)
    out = subprocess.run([folder / "abi"], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in out.splitlines())}


def test_constants(compiled: dict[str, int]) -> None:
    """Version, magic and flags are the header's."""
    assert index.ABI_VERSION == abi.ABI_VERSION
    assert {name: compiled[name] for name in CONSTANTS} == CONSTANTS


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(compiled: dict[str, int], name: str) -> None:
    """Every field has the compiler's offset, size and signedness, and none is missing at the end."""
    mirror = STRUCTURES[name]
    form = mirror.FORMAT.format.lstrip("<")
    codes = [code for n, c in _items(form) for code in ([n + c] if c == "s" else [c] * int(n or 1))]
    assert len(codes) == len(fields(mirror))
    offset = 0
    for field, code in zip(fields(mirror), codes, strict=True):
        assert compiled[f"{name}.{field.name}"] == offset
        assert compiled[f"{name}.{field.name}.size"] == struct.calcsize("<" + code)
        if field.type != "bytes":
            assert compiled[f"{name}.{field.name}.signed"] == code.islower()
        offset += struct.calcsize("<" + code)
    whole = offset + (abi.FlkTemplate.FORMAT.size if name == "flk_config" else 0)
    assert compiled[name] == whole


def _items(form: str) -> list[tuple[str, str]]:
    found, count = [], ""
    for c in form:
        if c.isdigit():
            count += c
        else:
            found.append((count, c))
            count = ""
    return found


def test_names_of_system_calls(tmp_path: Path) -> None:
    """The runtime's list says what the package's table says, and so does what is made of it."""
    stub = ROOT / "runtime_stub"
    listed = [line.split() for line in (stub / "include/syscall_names.txt").read_text().splitlines() if line[0] != "#"]
    assert {int(number): name for number, name in listed} == NAME_OF
    subprocess.run(["gcc", "-o", tmp_path / "pack", stub / "tools/pack_names.c"], check=True)
    with (stub / "include/syscall_names.txt").open() as names:
        header = subprocess.run([tmp_path / "pack"], stdin=names, check=True, capture_output=True, text=True).stdout
    gap, end, _, first_start = (int(n) for n in re.findall(r"#define NAMES_\w* (\d+)", header))
    table, symbols = header.split("syscall_names[]")
    pairs = [(int(a), int(b)) for a, b in re.findall(r"\{(\d+), (\d+)\}", table)]

    def expand(symbol: int) -> str:
        pair = (symbol - 128) & 255
        return "".join(map(expand, pairs[pair])) if pair < len(pairs) else chr(symbol)

    found = []
    for symbol in map(int, re.findall(r"\d+", symbols)):
        text, pair = expand(symbol), (symbol - 128) & 255
        begins = re.match(r"[@A-Z\x7f]", text) is not None
        if pair < len(pairs):
            assert begins == (pair >= first_start)
        if begins:
            found.append(text.lower().replace("\x7f", "_").strip("@"))
        else:
            found[-1] += text
    assert {n if n < gap else n + end - gap: name for n, name in enumerate(found) if name} == NAME_OF


def test_way_behind_a_clients_call() -> None:
    """The runtime's assembly knows how far it is from where flk_enter returns to behind S."""
    header = (ROOT / "runtime_stub" / "abi.h").read_text()
    (distance,) = re.findall(r"#define CLIENT_RET_TO_AFTER (\d+)", header)
    labels = trampoline_template(Shape.CLIENT).labels
    assert labels["after"] - labels["ret"] == int(distance)
