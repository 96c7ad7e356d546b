"""Signals injected at single instructions of a rewritten program: trampolines, entry, hook, exit, handlers.

The driver steps the target to an instruction, injects a signal, and lets it run on, or steps on and injects a second
one; the target checks registers, flags, red zone, stacks, masks and program counters in its handlers and afterwards.
Samples are drawn by a fixed seed. FLICKER_ATTACK=full (make attack) takes every instruction for a single signal, and
1000 points of each case with two, since all pairs of instructions would take weeks. That is some 600 million steps of
10 to 20 us, or up to 60 us beside threads: by estimate four or five hours in one go. `-k` divides it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

import flicker_aot

from ..bundle.bundles import bundle, compile_c
from ..support.artifacts import Artifacts
from ..support.note import read_note

HERE = Path(__file__).parent
FULL = os.environ.get("FLICKER_ATTACK") == "full"
SEED = 1
# Points of one case.
SINGLE_POINTS = ("-k", "0:-1:1") if FULL else ("-n", f"24:{SEED}")
OWN_GS_POINTS = SINGLE_POINTS if FULL else ("-n", f"60:{SEED}")  # a trap is thousands of steps
THREAD_POINTS = SINGLE_POINTS if FULL else ("-n", f"4:{SEED}")
DOUBLE_POINTS = ("-m", "0:-1:1", "-n", f"{1000 if FULL else 8}:{SEED}")
LIMIT_SECONDS = 20000 if FULL else 1800  # the driver knows a program that hangs; a busy machine is only slow
SOURCES = ("target.c", "bodies.S", "others.c", "kinds.c")
COMPILERS = {
    "gcc": "gcc -static -O2 -DMARKERS",
    "gcc-pie": "gcc -static-pie -fPIE -O2 -DMARKERS",
    "traps": "gcc -static -O2 -DMARKERS -DTRAPS",  # with sites that only SIGILL serves: its mask bit is virtual
    "musl": "musl-gcc -static -O2 -DMARKERS",
    "hook": "gcc -static -O2 -DMARKERS",
    "hook-leave": "gcc -static -O2 -DMARKERS -DSUSPEND_RESULT=-1004",  # the hook's
}
# How each is rewritten: `count` works in registers only, a hook has a frame, its leave part another one.
TOOLS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(COMPILERS, ("--tool", "count")),
    "hook": ("--hook", str(HERE / "hook_enter.c")),
    "hook-leave": ("--hook", str(HERE / "hook_leave.c")),
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
    "getppid short",
    "getppid short raise2 alt=12288 jump2",
    "getppid evict flags=0xcd5 skew=8 mask",
    "-b readblk evict alt=8192 jump1",
]
# A gs base of the program's own: by a trap, and past one, since another thread had one.
OWN_GS = [
    "getppid before gs",
    "getppid before gs alt=8192 jump1",
    "getppid after gs flags=0xcd5 skew=8 raise2",
    "-b readblk before gs restart",
    "read after othergs resethand",
    "getppid before othergs alt=8192 jump1",
    "-b readblk after othergs jump1",
]
# Calls that the runtime answers itself or takes through a stub, by a trap, from code made at run time; children with
# and without the parent's memory; with -c it is the child that is attacked.
LONG = [
    "action after",
    "block before",
    "altset before jump1",
    "-b suspend before",
    "getppid trap alt=16384 jump1",
    "getppid made flags=0xcd5 skew=8",
    "-b readblk made restart alt=16384 jump1",
    "-b suspend made",
    "getppid made gs",
    "fork child",
    "fork child gs",
    "block before gs",
    "vfork child",
    "clone child",
    "-c fork child childmark",
    "-c vfork child childmark",
    "-c clone child childmark",
]
# SIGUSR1, and SIGUSR2 anywhere from there on: in the entry of the first handler, in its calls, on its way back.
DOUBLE = [
    *LONG,
    "getppid before",
    "getppid before alt=16384 jump1",
    "getppid before alt=16384 jump2",
    "getppid before flags=0xcd5 skew=8",
    "getppid trap jump2",
    "getppid trap flags=0xcd5",
    "-b readblk before restart",
    "-b readblk before restart alt=16384 jump1",
]
LEAVE_DOUBLE = [
    "getppid before flags=0xcd5 skew=8",
    "getppid before alt=16384 jump2",
    "getppid after gs jump1",
    "-b readblk before restart alt=16384 jump1",
    "-b suspend before",
    "vfork child",
    "clone child",
]
# Beside threads that make calls, raise signals at each other, install handlers and end (others.c); with -t the thread
# under attack is not the process's first one.
THREADS = [
    "getppid before threads",
    "getppid after threads alt=8192 flags=0xcd5 skew=8",
    "getppid before threads jump1",
    "getppid short threads alt=8192 jump1",
    "-b readblk after threads restart",
    "action after threads",
    "clone child threads",
    "-t getppid after second flags=0xcd5 skew=8",
    "-t getppid before second alt=8192",
    "-t getppid made second alt=8192",
    "-t getppid evict second jump1",
    "-t getppid after second alt=8192 jump1",
    "-t -b readblk before second alt=8192 jump1",
    "-t block before second",
    "-t fork child second",
    "-t vfork child second",
    "-t getppid before second gs",
]
THREADS_DOUBLE = [
    "getppid before threads",
    "getppid before threads alt=16384",
    "getppid before threads jump2",
    "-b readblk before threads restart alt=16384 jump1",
    "-t getppid before second",
    "-t getppid trap second alt=16384",
    "-t getppid trap second jump2",
    "-t getppid before second alt=16384 jump2",
    "-t altset before second jump1",
    "-t clone child second",
]
# In a bundle, while calls of clients leave their trampolines for a stub, and those of made code trap.
ARMED = [
    "getppid before flags=0xcd5 skew=8",
    "getppid short raise2 alt=12288 jump2",
    "-b readblk after restart alt=8192",
    "-b suspend before",
    "-b suspend made",
    "vfork child",
    "-c clone child childmark",
]
# From a library that no plan knows, once its call is patched.
PROMOTED = [
    "getppid loaded flags=0xcd5 skew=8",
    "getppid loaded raise2 alt=12288 jump2",
    "-b readblk loaded restart alt=8192 jump1",
    "-b suspend loaded",
    "-t getppid loaded second alt=8192",
]
# The same code, in memory of the program's own.
PROMOTED += [f"{case} copied" for case in PROMOTED[:3]]
# By one thread to another, when the first code is made.
TOLD = [
    "getppid before",
    "getppid made",
    "getppid before gs",
    "action after",
    "fork child",
    "vfork child",
    "clone child",
]
USR1, USR2, SYS = "10", "12", "31"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled driver."""
    out = tmp_path_factory.mktemp("attack") / "driver"
    subprocess.run(["gcc", "-O2", "-o", out, HERE / "driver.c"], check=True)
    return out


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory, artifacts: Artifacts) -> dict[str, Path]:
    """The target in every mode, rewritten; and one as it was."""
    directory = tmp_path_factory.mktemp("targets")
    made = {}
    for mode, compiler in COMPILERS.items():
        original = directory / f"target.{mode}"
        command = [*shlex.split(compiler), "-o", str(original), *(str(HERE / name) for name in SOURCES)]
        subprocess.run(command, check=True)
        made[mode] = artifacts.rewritten(original, *TOOLS[mode])
    return made | {"original": directory / "target.traps"}


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The target in bundles, with the guard armed from the start."""
    directory = tmp_path_factory.mktemp("armed")
    flags: list[str | Path] = [*(HERE / name for name in SOURCES[1:]), "-DMARKERS", "-DDYNAMIC"]
    made = {}
    for mode, more in (("gcc", ()), ("hook-leave", ("-DSUSPEND_RESULT=-1004",))):
        original = compile_c(HERE / SOURCES[0], directory / mode / "target", *flags, *more)
        made[mode] = bundle(original, directory / f"{mode}.bundle", "--guard", "on", *TOOLS[mode]).program
    return made


@pytest.fixture(scope="module")
def single_files(tmp_path_factory: pytest.TempPathFactory, artifacts: Artifacts) -> dict[str, Path]:
    """The target as a single file, in two modes, and as it was; a library for it."""
    directory = tmp_path_factory.mktemp("single")
    library = compile_c(HERE / "loaded.S", directory / "loaded.so", "-shared", "-nostdlib")
    flags: list[str | Path] = [*(HERE / name for name in SOURCES[1:]), "-DMARKERS", "-DDYNAMIC"]
    made = {"library": library}
    for mode, more in (("gcc", ()), ("hook-leave", ("-DSUSPEND_RESULT=-1004",))):
        original = compile_c(HERE / SOURCES[0], directory / mode / "target", *flags, *more)
        made[mode] = artifacts.rewritten(original, "--guard", "patch", *TOOLS[mode])
    return made | {"original": directory / "gcc" / "target"}


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
        timeout=LIMIT_SECONDS,
        env={"FLICKER_AOT_OUTPUT": "/dev/null"},
    )
    found = json.loads(done.stdout)
    assert found["points"] > 0
    assert not found["failures"], json.dumps(found["failures"][:3])


@pytest.mark.parametrize("mode", COMPILERS)
def test_shapes(targets: dict[str, Path], mode: str) -> None:
    """Each shape has the tactic that it is made for: else less would be attacked than it seems."""
    tactics = {site["tactic"] for site in read_note(targets[mode])["sites"]}
    assert tactics >= {"window", "short", "successor"}
    assert ("trap" in tactics) == (mode == "traps")


@pytest.mark.parametrize("mode", COMPILERS)
@pytest.mark.parametrize("case", WHOLE)
def test_signal_at_every_instruction(driver: Path, targets: dict[str, Path], mode: str, case: str) -> None:
    """A signal at any instruction of a call does no harm, whether its handler returns or jumps out."""
    _attack(driver, targets[mode], case)


@pytest.mark.parametrize("mode", COMPILERS)
@pytest.mark.parametrize("case", OWN_GS)
def test_signal_with_own_gs(driver: Path, targets: dict[str, Path], mode: str, case: str) -> None:
    """The same where gs is the program's: it is there in every handler and afterwards."""
    _attack(driver, targets[mode], case, *OWN_GS_POINTS)


@pytest.mark.parametrize(
    ("case", "mode"),
    [(case, mode) for case in LONG for mode in ("traps", "hook-leave") if mode == "traps" or " trap" not in case],
)
def test_signal_in_long_paths(driver: Path, targets: dict[str, Path], mode: str, case: str) -> None:
    """The same where there are thousands of instructions."""
    _attack(driver, targets[mode], case, *SINGLE_POINTS)


@pytest.mark.parametrize(
    ("case", "mode"),
    # Each case in two of the modes.
    [(c, m) for i, c in enumerate(THREADS) for j, m in enumerate(("traps", "musl", "hook-leave")) if i % 3 != j],
)
def test_signal_beside_threads(driver: Path, targets: dict[str, Path], mode: str, case: str) -> None:
    """The same in one of several threads: it and they come to the right end."""
    _attack(driver, targets[mode], case, *THREAD_POINTS)


@pytest.mark.parametrize("case", WHOLE[:4] + WHOLE[6:8])
def test_signal_with_vectors(driver: Path, targets: dict[str, Path], artifacts: Artifacts, case: str) -> None:
    """The same where a hook has vector registers of its own: a deferred signal's frame has the program's."""
    hook = HERE.parent / "e2e" / "hooks" / "vectors.c"
    rewritten = artifacts.rewritten(targets["original"], "--hook", str(hook))
    _attack(driver, rewritten, case, *SINGLE_POINTS)


@pytest.mark.parametrize("mode", ["gcc", "hook-leave"])
@pytest.mark.parametrize("case", ARMED)
def test_signal_while_armed(driver: Path, armed: dict[str, Path], mode: str, case: str) -> None:
    """The same where the guard is armed, in a process whose runtime is its interpreter's."""
    _attack(driver, armed[mode], case, *SINGLE_POINTS)


@pytest.mark.parametrize("mode", ["gcc", "hook-leave", "original"])
@pytest.mark.parametrize("case", PROMOTED)
def test_signal_at_a_promoted_site(driver: Path, single_files: dict[str, Path], mode: str, case: str) -> None:
    """The same where the trampoline was made at run time."""
    case += f" library={single_files['library']}" + ("" if mode == "original" else " promoted")
    _attack(driver, single_files[mode], case, *SINGLE_POINTS)


@pytest.mark.parametrize("mode", ["gcc", "hook-leave"])
@pytest.mark.parametrize("case", TOLD)
def test_told_to_arm(driver: Path, targets: dict[str, Path], mode: str, case: str) -> None:
    """The signal by which one thread tells another to arm the guard changes nothing, wherever it comes."""
    _attack(driver, targets[mode], case, "-1", SYS, *SINGLE_POINTS)


@pytest.mark.parametrize("case", LEAVE_DOUBLE)
def test_second_signal_with_leave(driver: Path, targets: dict[str, Path], case: str) -> None:
    """Two signals where a hook changes arguments and has a leave part."""
    _attack(driver, targets["hook-leave"], case, "-2", USR2, *DOUBLE_POINTS)


@pytest.mark.parametrize("case", THREADS_DOUBLE)
def test_second_signal_beside_threads(driver: Path, targets: dict[str, Path], case: str) -> None:
    """Two signals in one of several threads."""
    _attack(driver, targets["traps"], case, "-2", USR2, *DOUBLE_POINTS)


@pytest.mark.parametrize("second", [USR2, USR1])
@pytest.mark.parametrize("case", DOUBLE)
def test_second_signal(driver: Path, targets: dict[str, Path], case: str, second: str) -> None:
    """A second signal, or the same one again, while the first is delivered, handled or returned from."""
    # SIGUSR1 is blocked in its own handler, but with nodefer.
    how = () if second == USR2 else ("nodefer",)
    _attack(driver, targets["traps"], " ".join((case, *how)), "-2", second, *DOUBLE_POINTS)


@pytest.mark.parametrize("case", [*DOUBLE, *THREADS_DOUBLE])
def test_the_original_passes(driver: Path, targets: dict[str, Path], case: str) -> None:
    """What the target checks holds without a rewriter: what the tests above find is the rewriter's fault."""
    _attack(driver, targets["original"], case, "-2", USR2, "-m", "0:-1:1", "-n", f"4:{SEED}")


@pytest.mark.parametrize(
    "case", ["clone child waits", "vfork child waits", "clone child ignores", "vfork child ignores"]
)
@pytest.mark.parametrize("name", ["none", "count"])
def test_signal_without_a_handler(
    driver: Path, targets: dict[str, Path], artifacts: Artifacts, case: str, name: str
) -> None:
    """SIGILL, blocked or ignored, while gs is the child's block in the parent: the runtime goes on just there.

    It takes that signal in a file with trap sites.
    """
    rewritten = artifacts.rewritten(targets["original"], "--tool", name)
    shift = read_note(rewritten)["runtime"]["enter"] - _stub_symbol(name, "flk_enter")
    places = [_stub_symbol(name, at) + shift for at in ("flk_sp_native", "flk_sp_repaired")]
    # The last one is a step further than the labels.
    _attack(driver, rewritten, case, "-1", "4", "-a", f"{places[0]:x}:{places[1] + 1:x}")


def _stub_symbol(name: str, symbol: str) -> int:
    """The address of ``symbol`` in the compiled runtime of tool ``name``."""
    stub = Path(flicker_aot.__file__).parent / "stub" / f"{name}.elf"
    listing = subprocess.run(["nm", stub], check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[0], 16) for line in listing.splitlines() if line.split()[-1] == symbol)


@pytest.mark.parametrize("mode", ["gcc", "gcc-pie"])
@pytest.mark.parametrize("body", ["call", "indirect", "loop", "last", "jrcxz"])
def test_signal_inside_a_copy(driver: Path, displaced: dict[str, Path], mode: str, body: str) -> None:
    """The copy of a call or a loop is several instructions: a handler never sees a state from between them."""
    _attack(driver, displaced[mode], body)
