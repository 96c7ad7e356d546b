"""Signals injected at single instructions of a rewritten program: trampolines, entry, hook, exit, handlers.

The driver steps the target to an instruction, injects SIGUSR1, and lets it run on; the target checks registers, flags,
red zone, stacks, masks and program counters in its handlers and afterwards. FLICKER_ATTACK_STRIDE=1 takes every
instruction of the long cases and adds the longest ones (an hour); the default samples.

"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from ..support.artifacts import Artifacts

HERE = Path(__file__).parent
STRIDE = int(os.environ.get("FLICKER_ATTACK_STRIDE", "997"))
COMPILERS = {
    "gcc": "gcc -static -O2 -DMARKERS",
    "gcc-pie": "gcc -static-pie -fPIE -O2 -DMARKERS",
    "traps": "gcc -static -O2 -DMARKERS -DTRAPS",  # with sites that only SIGILL serves: its mask bit is virtual
    "musl": "musl-gcc -static -O2 -DMARKERS",
}
# Every instruction between the markers.
WHOLE = [
    "getppid before",
    "getppid before jump1",
    "getppid after alt=8192 jump1",
    "getppid before flags=0xcd5 skew=8 mask",
    "getppid before raise2 alt=12288 jump2",
    "read after resethand",
    "-b readblk before restart",
    "-b readblk after alt=8192 jump1",
]
# Long paths: one instruction in STRIDE.
SAMPLED = [
    "action after",
    "block before",
    "altset before jump1",
    "-b suspend before",
    "fork child",
]
# Children with shared memory, thousands of instructions each: only where a stride is given.
LONGEST = ["-c fork child", "vfork child", "-c vfork child", "clone child", "-c clone child"]
if "FLICKER_ATTACK_STRIDE" in os.environ:
    SAMPLED += LONGEST


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled driver."""
    out = tmp_path_factory.mktemp("attack") / "driver"
    subprocess.run(["gcc", "-O2", "-o", out, HERE / "driver.c"], check=True)
    return out


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory, artifacts: Artifacts) -> dict[str, Path]:
    """The target in every mode, rewritten with `count`."""
    directory = tmp_path_factory.mktemp("targets")
    made = {}
    for mode, compiler in COMPILERS.items():
        original = directory / f"target.{mode}"
        command = [*shlex.split(compiler), "-o", str(original), str(HERE / "target.c"), str(HERE / "bodies.S")]
        subprocess.run(command, check=True)
        made[mode] = artifacts.rewritten(original, "--tool", "count")
    return made


@pytest.fixture(scope="module")
def displaced(tmp_path_factory: pytest.TempPathFactory, artifacts: Artifacts) -> dict[str, Path]:
    """displaced.c in two modes: their calls push the return address in different ways."""
    directory = tmp_path_factory.mktemp("displaced")
    made = {}
    for mode in ("gcc", "gcc-pie"):
        original = directory / f"displaced.{mode}"
        subprocess.run([*shlex.split(COMPILERS[mode]), "-o", original, HERE / "displaced.c"], check=True)
        made[mode] = artifacts.rewritten(original, "--tool", "count")
    return made


def _attack(driver: Path, target: Path, case: str, *how: str) -> None:
    words = case.split()
    flags = [w for w in words if w.startswith("-")]
    rest = [w for w in words if not w.startswith("-")]
    done = subprocess.run(
        [driver, *how, *flags, target, *rest],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={"FLICKER_AOT_OUTPUT": "/dev/null"},
    )
    found = json.loads(done.stdout)
    assert found["points"] > 0
    assert not found["failures"], found["failures"][:3]


@pytest.mark.parametrize("mode", COMPILERS)
@pytest.mark.parametrize("case", WHOLE)
def test_signal_at_every_instruction(driver: Path, targets: dict[str, Path], mode: str, case: str) -> None:
    """A signal at any instruction of a call does no harm, whether its handler returns or jumps out."""
    _attack(driver, targets[mode], case)


@pytest.mark.parametrize("mode", ["traps"])
@pytest.mark.parametrize("case", SAMPLED)
def test_signal_in_long_paths(driver: Path, targets: dict[str, Path], mode: str, case: str) -> None:
    """The same in calls that the runtime answers itself or takes through a stub, and in their children."""
    _attack(driver, targets[mode], case, "-k", f"0:-1:{STRIDE}")


@pytest.mark.parametrize("mode", ["gcc", "gcc-pie"])
@pytest.mark.parametrize("body", ["call", "indirect", "loop", "last", "jrcxz"])
def test_signal_inside_a_copy(driver: Path, displaced: dict[str, Path], mode: str, body: str) -> None:
    """The copy of a call or a loop is several instructions: a handler never sees a state from between them."""
    _attack(driver, displaced[mode], body)
