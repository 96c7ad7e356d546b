"""Calls of a library that no plan knows: which are patched after a few traps, which not, what the program sees of it.
Second opinions: the original program, and the oracle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ..bundle.bundles import compile_c
from ..support.execute import run
from ..support.need import need
from ..support.rewrite import counted_calls
from .singles import Single, single

SOURCES = Path(__file__).parent / "src"
LIBRARY = ("-shared", "-nostdlib")
TRAPS = 4 + 3  # of a site, until it is patched (promote.c): the code has three pages
SITES = 47  # of a library that can be
MORE = SITES + 11
TIMES = 20
PATCHED = ("plain", "behind", "across", "entered", "tail", "memory")
DECLINED = ("flow", "relative", "near", "short", "other", "vector")
EACH = (TRAPS * len(PATCHED) + TIMES * len(DECLINED), len(PATCHED))  # guard_traps, promoted
UNPATCHED = (TIMES * (len(PATCHED) + len(DECLINED)), 0)
MAPS = frozenset(("read", "mremap"))


PATCHES = ("--tool", "count", "--guard", "patch")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Single:
    directory = tmp_path_factory.mktemp("promotion")
    program = compile_c(SOURCES / "promote.c", directory / "promote", f"-DMORE={MORE}")
    return single(program, directory / "out" / "promote", *PATCHES)


@pytest.fixture(scope="module")
def library(made: Single) -> Path:
    return compile_c(SOURCES / "hot.S", made.original.parent / "libhot.so", *LIBRARY)


def _figures(lines: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(line["guard_traps"], line.get("promoted", 0)) for line in lines]


@pytest.mark.parametrize(
    ("mode", "traps", "promoted"),
    [
        ("each", *EACH),
        # A jump to the call traps, each time.
        ("direct", 3 * 10 + TRAPS, 2),
        ("fault", TRAPS, 1),
        ("reload", 300 * 2 * TRAPS, 300 * 2),
        # What was writable is not patched any more (what is behind it is, a page less); nor what moved, or came there.
        ("rights", TRAPS + 2 * TIMES, 1),
        ("move", TRAPS + TIMES, 1),
        ("over", TRAPS + 3 * TIMES, 1),
        ("advise", 2 * TRAPS, 1),
        ("made", 6 * TIMES, 0),
    ],
)
def test_as_before(made: Single, library: Path, tmp_path: Path, mode: str, traps: int, promoted: int) -> None:
    """Output, number of calls, and where they are made; how many trapped, and how many sites were patched."""
    exact = mode != "made"  # its file has another name each time
    (line,) = made.check(tmp_path / "count.json", mode, library, exact=exact, leave_out=MAPS)
    assert _figures([line]) == [(traps, promoted)]


def test_threads(made: Single, library: Path, tmp_path: Path) -> None:
    """Several at the same sites, and a handler: each call counts once."""
    (line,) = made.check(tmp_path / "count.json", "threads", library, exact=False)
    assert line["promoted"] == 3
    counted = line["calls"]
    assert isinstance(counted, dict)
    assert (counted["getppid"], counted["getgid"], counted["getuid"]) == (4 * 2001 + 100, 4 * 2001, 4 * 2001)


@pytest.mark.parametrize("is_planned", [False, True], ids=["unknown", "planned"])
def test_churn(made: Single, library: Path, tmp_path: Path, is_planned: bool) -> None:
    """Libraries come and go while others are called, and a signal may find a thread anywhere."""
    copies = [shutil.copy(library, tmp_path / f"{library.name}{suffix}") for suffix in ("", ".0", ".1")]
    included = [word for path in copies for word in ("--include", path)] if is_planned else []
    program = single(made.original, tmp_path / "out" / "promote", *PATCHES, *included).program
    done = run([program, "churn", copies[0]], env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    assert (done.status, done.stdout, done.stderr) == (0, b"0 wrong\n", b"")


def test_children(made: Single, library: Path, tmp_path: Path) -> None:
    """One with memory of its own has what is patched and patches for itself; one with the parent's does not patch."""
    lines = made.check(tmp_path / "count.json", "children", library, leave_out=MAPS)
    assert _figures(lines) == [(TRAPS, 2), (TIMES, 1), (2 * TRAPS, 2)]


def test_which_sites(made: Single, library: Path) -> None:
    """Each shape of hot.S by its name; the system call instruction itself is never changed."""
    done = run([made.program, "bytes", library], env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    assert done.stdout.decode().splitlines() == [
        *(f"{name}: 0 wrong, syscall is 0f 05, patched" for name in PATCHED),
        *(f"{name}: 0 wrong, syscall is 0f 05, as in the file" for name in DECLINED),
    ]


def test_without_frames(made: Single, tmp_path: Path) -> None:
    """Nothing says where functions begin: nothing is patched."""
    bare = compile_c(SOURCES / "hot.S", tmp_path / "libbare.so", *LIBRARY, "-DBARE", "-Wl,--no-eh-frame-hdr")
    (line,) = made.check(tmp_path / "count.json", "each", bare)
    assert _figures([line]) == [UNPATCHED]


@pytest.mark.parametrize("way", ["no proc", "no rights"])
def test_without_means(made: Single, library: Path, tmp_path: Path, way: str) -> None:
    """/proc is not needed; where no memory can be made executable (MDWE) nothing is patched."""
    need("unshare")
    report = tmp_path / "count.json"
    wrapper = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if way == "no rights":
        wrapper = [str(compile_c(SOURCES / "deny.c", tmp_path / "deny"))]
    done = run([*wrapper, made.program, "each", library], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done == run([made.original, "each", library])
    assert _figures([json.loads(report.read_text())]) == [EACH if way == "no proc" else UNPATCHED]


def test_left_alone(made: Single, library: Path, tmp_path: Path) -> None:
    """What --only leaves alone is a site that a plan knows: those of this library are hooked, by a trap and patched."""
    only = single(made.original, tmp_path / "out" / "promote", *PATCHES, "--only", "uname").program
    report = tmp_path / "count.json"
    run([only, "each", library], env={"FLICKER_AOT_OUTPUT": str(report)})
    counted = counted_calls(report)
    assert [counted[name] for name in ("getppid", "getgid", "gettid")] == [TIMES + 1] * 3  # and once by libc
    assert json.loads(report.read_text())["promoted"] == len(PATCHED)


def test_bounded(made: Single, tmp_path: Path) -> None:
    """A library has one block: what does not fit traps."""
    many = compile_c(SOURCES / "hot.S", tmp_path / "libmany.so", *LIBRARY, f"-DMORE={MORE}")
    (line,) = made.check(tmp_path / "count.json", "more", many)
    assert _figures([line]) == [(TRAPS * SITES + 10 * (MORE - SITES), SITES)]


def test_newer_than_its_plan(made: Single, library: Path, tmp_path: Path) -> None:
    """A library that is not the one that was planned."""
    planned = tmp_path / library.name
    planned.write_bytes(library.read_bytes())
    program = single(made.original, tmp_path / "out" / "promote", *PATCHES, "--include", planned).program
    report = tmp_path / "count.json"
    compile_c(SOURCES / "hot.S", planned, *LIBRARY, "-Wl,--build-id=0x0123456789abcdef")
    done = run([program, "each", planned], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done == run([made.original, "each", planned])
    assert _figures([json.loads(report.read_text())]) == [EACH]


@pytest.mark.parametrize("guard", ["auto", "off"])
def test_only_if_asked_for(made: Single, library: Path, tmp_path: Path, guard: str) -> None:
    """Nothing is patched by default, and nothing where nothing traps."""
    plain = single(made.original, tmp_path / "out" / "promote", "--tool", "count", "--guard", guard)
    report = tmp_path / "count.json"
    done = run([plain.program, "bytes", library], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert b"patched" not in done.stdout
    told = json.loads(report.read_text())
    assert "promoted" not in told and (told["guard_traps"] > 0) == (guard == "auto")


@pytest.mark.parametrize(("target", "promoted"), [("before+1", 0), ("site", 1)])
def test_led_to_from_a_quiet_part(tmp_path: Path, target: str, promoted: int) -> None:
    """Code of the library that has no system call, and is not guarded, is searched for branches all the same."""
    flags = (*LIBRARY, "-Wl,--section-start=.far=0x8000", f"-DTARGET={target}")
    library, report = compile_c(SOURCES / "quiet_part.S", tmp_path / "part.so", *flags), tmp_path / "count.json"
    program = compile_c(SOURCES / "quiet_part.c", tmp_path / "quiet_part")
    made = single(program, tmp_path / "out" / "quiet_part", *PATCHES)
    done = run([made.program, library], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done == run([program, library])
    assert json.loads(report.read_text()).get("promoted", 0) == promoted
