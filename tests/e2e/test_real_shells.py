"""Static shells and busybox: applets, pipelines, traps and job control give what the originals give."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.execute import Outcome, run
from ..support.need import need
from ..support.rewrite import Invocation, assert_counts, assert_nothing_escapes, assert_same_behaviour

TEXT = b"pear\napple\nfig\napple\nbanana 10\ncherry 9\n"

# Arguments, and standard input; each applet does real work on it.
APPLETS: list[tuple[list[str], bytes]] = [
    (["echo", "-n", "one", "two"], b""),
    (["cat", "-"], TEXT),
    (["sort", "-r"], TEXT),
    (["uniq", "-c"], TEXT),
    (["wc"], TEXT),
    (["head", "-n", "2"], TEXT),
    (["tail", "-n", "2"], TEXT),
    (["tr", "a-z", "A-Z"], TEXT),
    (["sed", "s/apple/APPLE/;/fig/d"], TEXT),
    (["awk", "{ n += length($1) } END { print n, NR }"], TEXT),
    (["grep", "-n", "an"], TEXT),
    (["cut", "-c", "2-3"], TEXT),
    (["rev"], TEXT),
    (["md5sum"], TEXT),
    (["sha256sum"], TEXT),
    (["sha512sum"], TEXT),
    (["base64"], TEXT),
    (["od", "-c"], TEXT),
    (["hexdump", "-C"], TEXT),
    (["gzip", "-9", "-n"], TEXT * 100),
    (["seq", "1", "3", "20"], b""),
    (["expr", "6", "*", "7"], b""),
    (["printf", "%05d|%s\\n", "42", "x"], b""),
    (["test", "1", "-gt", "2"], b""),
    (["basename", "/a/b.c", ".c"], b""),
    (["env"], b""),
    (["ls", "-1", "/etc/apt"], b""),
    (["stat", "-c", "%a %s %F", "/etc/passwd"], b""),
    (["find", "/etc/apt", "-type", "d"], b""),
    (["cmp", "/etc/passwd", "/etc/group"], b""),
    (["dd", "bs=7", "count=3"], TEXT),
    (["bc"], b"2^100\n"),
    (["xargs", "-n", "2", "echo"], TEXT),
    (["id", "-u"], b""),
    (["uname", "-sm"], b""),
    (["cat", "/nonexistent"], b""),
    (["sleep", "0.01"], b""),
    (["timeout", "0.1", "sleep", "5"], b""),
    (["nproc"], b""),
    (["date", "-u", "-d", "@86400"], b""),
]

SCRIPTS = {
    "pipeline": "seq 1 200 | sed 's/1/x/g' | sort | uniq -c | awk '{ s += $1 } END { print s }'",
    "status": "(exit 3); echo $?; false || echo no; true && echo yes; ! true; echo $?; exit 9",
    "substitution": "x=$(echo a; echo b | tr b c); echo \"$x\"; for i in 1 2 3; do printf '%s ' $((i * i)); done; echo",
    "here-document": "cat <<X | tr a-z A-Z\none $((1 + 1))\nX",
    "trap": "trap 'echo got USR1' USR1; trap 'echo bye' EXIT; kill -USR1 $$; echo after",
    "background": "(sleep 0.05; echo first) & wait $!; echo status $?; (exit 5) & wait $!; echo status $?",
    # Whether "Terminated" is printed depends on who reaps the child: `wait`, or what is done before any builtin.
    "killed": "sleep 10 & p=$!; { kill -TERM $p; wait $p; } 2>/dev/null; echo $?",
    "interrupt": "trap 'echo int; exit 4' INT; kill -INT $$; sleep 1; echo not reached",
    "redirection": "exec 3>&1; { echo to 3 >&3; echo err >&2; } 2>&1 | sed 's/^/> /'; exec 3>&-",
    "read": "printf 'a b c\\nd e f\\n' | while read x y z; do echo $z $y $x; done",
    "large": "i=0; while [ $i -lt 300 ]; do i=$((i + 1)); echo line $i; done | tail -n 1",
    "subshells": "( ( ( echo deep; exit 2 ) ; echo $?; exit 3 ) ; echo $? )",
    "own-death": "echo before; kill -KILL $$; echo after",
}


def _farm(directory: Path, executable: Path) -> dict[str, str]:
    """A PATH on which every applet that the scripts name is ``executable``."""
    names = {args[0] for args, _ in APPLETS} | {"sleep", "sed", "sort", "sh", "kill", "true", "false", "[", "tail"}
    for name in names:
        (directory / name).symlink_to(executable)
    return {"PATH": str(directory)}


@pytest.fixture(scope="module")
def busybox(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, str]]:
    """busybox and its rewritten copy, each with an environment in which the other is never called."""
    original = need("busybox")
    rewritten = artifacts.rewritten(original, "--tool", "none")
    return {exe: _farm(tmp_path_factory.mktemp("farm"), exe) for exe in (original, rewritten)}


@pytest.mark.parametrize(("args", "stdin"), APPLETS, ids=lambda v: "-".join(v)[:20] if isinstance(v, list) else "")
def test_busybox_applets(busybox: dict[Path, dict[str, str]], args: list[str], stdin: bytes) -> None:
    """An applet's output, errors and exit status are the original's."""
    outcomes = [run([exe, *args], env={**env, "PATH": "/bin:/usr/bin"}, stdin=stdin) for exe, env in busybox.items()]
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_busybox_sh(busybox: dict[Path, dict[str, str]], tmp_path: Path, name: str) -> None:
    """A script's output and exit status are the original's, with every command of it run by the same file."""

    def outcome(exe: Path, env: dict[str, str]) -> Outcome:
        return run([exe, "sh", "-c", SCRIPTS[name]], env=env, cwd=tmp_path, argv0="busybox")

    first, second = (outcome(exe, env) for exe, env in busybox.items())
    assert first == second
    assert first.stdout


def test_busybox_nothing_escapes(busybox: dict[Path, dict[str, str]]) -> None:
    """ptrace sees no call of shell or applets outside the appended segment."""
    rewritten, env = list(busybox.items())[1]
    script = "; ".join(SCRIPTS[name] for name in ("pipeline", "substitution", "background", "killed"))
    traced = assert_nothing_escapes(rewritten, Invocation(args=("sh", "-c", script), env=env))
    assert traced.processes > 10


@pytest.mark.parametrize("args", [["echo", "hi"], ["ls", "-l", "/etc/apt"], ["sha256sum", "/etc/passwd"], ["seq", "9"]])
def test_busybox_counts(artifacts: Artifacts, tmp_path: Path, args: list[str]) -> None:
    """The counting busybox reports what ptrace sees of the original."""
    original = need("busybox")
    counting = artifacts.rewritten(original, "--tool", "count")
    assert_counts(original, counting, Invocation(args=args), tmp_path / "count.json")


def test_busybox_counts_a_pipeline(artifacts: Artifacts, tmp_path: Path) -> None:
    """Added up over a pipeline's processes, the counts are ptrace's, but for what depends on timing."""
    original = need("busybox")
    counting = artifacts.rewritten(original, "--tool", "count")
    how = Invocation(args=("sh", "-c", "echo a b | cat | wc -c; echo $(echo x)"), env={"PATH": "/nonexistent"})
    assert_counts(original, counting, how, tmp_path / "count.json", frozenset({"wait4", "rt_sigreturn", "read"}))


@pytest.mark.parametrize("shell", ["bash-static", "zsh-static"])
@pytest.mark.parametrize("tool", ["none", "count"])
def test_static_shell_scripts(artifacts: Artifacts, tmp_path: Path, shell: str, tool: str) -> None:
    """bash and zsh run every script as their originals do, and nothing of the shell escapes."""
    original = need(shell)
    rewritten = artifacts.rewritten(original, "--tool", tool)
    env = {"FLICKER_AOT_OUTPUT": "/dev/null"}
    for name, script in SCRIPTS.items():
        first, second = (run([exe, "-c", script], env=env, cwd=tmp_path, argv0=shell) for exe in (original, rewritten))
        assert first == second, name
    how = Invocation(args=("-c", SCRIPTS["background"] + "; echo $(echo x | cat)"), env=env)
    assert_nothing_escapes(rewritten, how)


def test_bash_job_control(artifacts: Artifacts) -> None:
    """`set -m`: jobs in process groups of their own, stopped, listed, continued and waited for."""
    original = need("bash-static")
    script = "set -m; sleep 0.3 & kill -STOP %1; sleep 0.1; jobs -s | wc -l; kill -CONT %1; wait %1; echo $?"
    how = Invocation(args=("-c", script))
    outcome = assert_same_behaviour(original, artifacts.rewritten(original, "--tool", "none"), how)
    assert outcome.stdout.split()[:2] == [b"1", b"0"]
