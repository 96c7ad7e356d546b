"""``--hook``: what hooks can do to a program, and what they are refused for."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from flicker_aot.toolchain import CFLAGS

from ..malformed.conftest import call
from ..support.need import need

ROOT = Path(__file__).parent.parent.parent
INCLUDE = ROOT / "flicker_aot" / "stub"
HEAD = '#include "flicker_hook.h"\n'
PASS = "int flicker_enter(struct flicker_call *c) { (void)c; return FLICKER_CALL; }\n"

# Makes write(1, "kernel\n", 7) with a known value in every register, and compares all of them afterwards (but rax,
# rcx and r11, which system calls overwrite); then prints the results of getpid, getppid and getuid.
PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
struct registers { unsigned long rbx, rdx, rsi, rdi, rbp, r8, r9, r10, r12, r13, r14, r15; };
static const char text[] = "kernel\n";
static struct registers want = {1, 7, (unsigned long)text, 1, 5, 6, 7, 8, 9, 10, 11, 12};
struct registers got;
static long call_with(long nr) {
    long result;
    __asm__ volatile(
        "push %%rbp\n push %%rbx\n"
        "mov %[w],%%rcx\n mov %%rax,%%r11\n"
        "mov 0(%%rcx),%%rbx\n mov 8(%%rcx),%%rdx\n mov 16(%%rcx),%%rsi\n mov 24(%%rcx),%%rdi\n mov 32(%%rcx),%%rbp\n"
        "mov 40(%%rcx),%%r8\n mov 48(%%rcx),%%r9\n mov 56(%%rcx),%%r10\n mov 64(%%rcx),%%r12\n mov 72(%%rcx),%%r13\n"
        "mov 80(%%rcx),%%r14\n mov 88(%%rcx),%%r15\n mov %%r11,%%rax\n"
        "syscall\n"
        "lea got(%%rip),%%rcx\n"
        "mov %%rbx,0(%%rcx)\n mov %%rdx,8(%%rcx)\n mov %%rsi,16(%%rcx)\n mov %%rdi,24(%%rcx)\n mov %%rbp,32(%%rcx)\n"
        "mov %%r8,40(%%rcx)\n mov %%r9,48(%%rcx)\n mov %%r10,56(%%rcx)\n mov %%r12,64(%%rcx)\n mov %%r13,72(%%rcx)\n"
        "mov %%r14,80(%%rcx)\n mov %%r15,88(%%rcx)\n"
        "pop %%rbx\n pop %%rbp\n"
        : "=a"(result)
        : "0"(nr), [w] "r"(&want)
        : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    return result;
}
int main(void) {
    long result = call_with(1);
    char same = !memcmp(&want, &got, sizeof want);
    char out[200];
    int size = snprintf(out, sizeof out, "%ld %d %d %d %d\n", result, same, getpid(), getppid() == getpid(), getuid());
    return fwrite(out, 1, size, stderr) != size;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PROGRAM; it tells on standard error: result of write, registers kept, pid, whether getppid is getpid, uid."""
    path = tmp_path_factory.mktemp("hooked") / "program"
    path.with_suffix(".c").write_text(PROGRAM)
    flags = ("-O2", "-static", "-fno-pie", "-no-pie")
    subprocess.run([need("gcc"), *flags, path.with_suffix(".c"), "-o", path], check=True)
    return path


def hooked(program: Path, folder: Path, hook: str) -> tuple[str, list[str], dict[str, int]]:
    """Standard output, words of standard error, and the template of ``program`` rewritten with ``hook``."""
    source, out = folder / "hook.c", folder / "out"
    source.write_text(HEAD + hook)
    done = call("rewrite", program, out, "--hook", source, "-q")
    assert done.code == 0, done.err
    ran = subprocess.run([out], capture_output=True, text=True, timeout=20)
    assert ran.returncode == 0, ran
    return ran.stdout, ran.stderr.split(), json.loads(call("inspect", out, "--json").out)["note"]["template"]


def refused(program: Path, folder: Path, hook: Path) -> str:
    """The one line of a rewriting that is refused because of its hook."""
    done = call("rewrite", program, folder / "out", "--hook", hook)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert not (folder / "out").exists()
    return done.err


def compiled(folder: Path, source: str, *flags: str) -> Path:
    """``source`` as an object file, compiled with ``flags`` alone."""
    path = folder / "hook.o"
    path.with_suffix(".c").write_text(source)
    subprocess.run(
        [need("gcc"), f"-I{INCLUDE}", *flags, "-c", path.with_suffix(".c"), "-o", path], check=True, capture_output=True
    )
    return path


# ---------------------------------------------------------------------------------------------------------------------
# What hooks do


def test_program_itself(program: Path) -> None:
    """The program says what the tests below rest on: nothing is changed, getppid is not getpid."""
    ran = subprocess.run([program], capture_output=True, text=True, timeout=20)
    result, same, pid, parent, uid = ran.stderr.split()
    assert (ran.stdout, result, same, parent) == ("kernel\n", "7", "1", "0")
    assert pid != "4711" and uid != "12345"


def test_answer(program: Path, tmp_path: Path) -> None:
    """A hook's answer is the call's result, and the kernel does not make the call: nothing is written."""
    hook = """
        int flicker_enter(struct flicker_call *c) {
            if (flicker_nr(c) == 39)
                return flicker_answer(c, 4711);
            if (flicker_nr(c) == 1 && flicker_arg(c, 0) == 1)
                return flicker_answer(c, -5);
            return FLICKER_CALL;
        }
    """
    out, (result, same, pid, _, _), template = hooked(program, tmp_path, hook)
    assert (out, result, same, pid) == ("", "-5", "1", "4711")
    assert not template["has_leave"]


def test_change_number(program: Path, tmp_path: Path) -> None:
    """Another number makes another call: getppid answers what getpid would. Trampolines get their leave part."""
    hook = """
        int flicker_enter(struct flicker_call *c) {
            if (flicker_nr(c) == 110)
                flicker_set_nr(c, 39);
            return FLICKER_CALL;
        }
    """
    out, (result, same, _, parent, _), template = hooked(program, tmp_path, hook)
    assert (out, result, same, parent) == ("kernel\n", "7", "1", "1")
    assert template["has_leave"]


@pytest.mark.parametrize("answered", [False, True])
def test_change_arguments(program: Path, tmp_path: Path, answered: bool) -> None:
    """Changed arguments reach the kernel (six letters go to standard error), and no register shows it afterwards.

    The same where the hook changes them and then answers the call itself."""
    hook = f"""
        static const char other[] = "hooked";
        int flicker_enter(struct flicker_call *c) {{
            if (flicker_nr(c) != 1 || flicker_arg(c, 0) != 1)
                return FLICKER_CALL;
            flicker_set_arg(c, 0, 2);
            flicker_set_arg(c, 1, (long)other);
            flicker_set_arg(c, 2, 6);
            for (int i = 3; i < 6; i++)
                flicker_set_arg(c, i, -1);
            return {"flicker_answer(c, 6)" if answered else "FLICKER_CALL"};
        }}
    """
    out, words, _ = hooked(program, tmp_path, hook)
    assert out == ""
    assert words[0] == ("6" if answered else "hooked6")
    assert words[1] == "1", "registers"


def test_leave_changes_result(program: Path, tmp_path: Path) -> None:
    """A leave part sees number, arguments and result of each call, and may change the result."""
    hook = """
        int flicker_enter(struct flicker_call *c) {
            return flicker_nr(c) == 39 ? flicker_answer(c, 1) : FLICKER_CALL;
        }
        void flicker_leave(struct flicker_return *r) {
            if (flicker_return_nr(r) == 102 && flicker_result(r) >= 0)
                flicker_set_result(r, 12345);
            if (flicker_return_nr(r) == 1 && flicker_return_arg(r, 0) == 1)
                flicker_set_result(r, flicker_result(r) + flicker_return_arg(r, 2));
        }
    """
    out, (result, same, pid, _, uid), template = hooked(program, tmp_path, hook)
    assert (out, result, same, pid, uid) == ("kernel\n", "14", "1", "1", "12345")
    assert template["has_leave"]


def test_start_and_own_calls(program: Path, tmp_path: Path) -> None:
    """flicker_start runs first and sees argc; flicker_syscall is not hooked; flicker_read reads, and survives a bad
    address."""
    hook = """
        static unsigned long argc;
        static long bad;
        void flicker_start(const unsigned long *stack) {
            long word;
            argc = stack[0];
            bad = flicker_read(&word, (void *)8, sizeof word);
        }
        int flicker_enter(struct flicker_call *c) {
            char text[7];
            if (flicker_nr(c) == 39)
                return flicker_answer(c, 100 * argc - bad);
            if (flicker_nr(c) == 1 && flicker_arg(c, 0) == 1 && !flicker_read(text, (void *)flicker_arg(c, 1), 7)) {
                text[0] = 'K';
                return flicker_answer(c, flicker_syscall(1, 1, (long)text, 7, 0, 0, 0));
            }
            return FLICKER_CALL;
        }
    """
    out, (result, same, pid, _, _), _ = hooked(program, tmp_path, hook)
    assert (out, result, same, pid) == ("Kernel\n", "7", "1", "114")


def test_object_file(program: Path, tmp_path: Path) -> None:
    """A hook that was compiled before does the same; ld alone builds it."""
    source = (
        HEAD + "int flicker_enter(struct flicker_call *c) { return flicker_nr(c) == 39 ? flicker_answer(c, 7) : 1; }"
    )
    hook = compiled(tmp_path, source, *CFLAGS)
    out = tmp_path / "out"
    assert call("rewrite", program, out, "--hook", hook, "-q").code == 0
    assert subprocess.run([out], capture_output=True, text=True, timeout=20).stderr.split()[2] == "7"
    assert json.loads(call("inspect", out, "--json").out)["note"]["tool"] == "hook:hook.o"


def test_flags_are_the_runtimes() -> None:
    """Hooks are compiled with the runtime's own flags."""
    makefile = (ROOT / "runtime_stub" / "Makefile").read_text()
    found = re.search(r"^HOOK_CFLAGS = (.*?[^\\])$", makefile, re.MULTILINE | re.DOTALL)
    assert found and tuple(found[1].replace("\\\n", " ").split()) == CFLAGS


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("int x = ;\n", ("hook.c:1:9: error: expected expression",)),
        ("int first = ;\nint second = ;\n", ("hook.c:1:13: error",)),
        ("int flicker_ente;\n", ("does not define int flicker_enter(struct flicker_call *)",)),
        (PASS + "int flicker_enter(struct flicker_call *c);\n int puts(const char *);\n"
         "void flicker_leave(struct flicker_return *r) { (void)r; puts(\"\"); }\n", ("undefined reference to `puts'",)),
        ("int flicker_enter(struct flicker_call *c) { volatile char big[9000]; big[flicker_nr(c)] = 0; return 1; }\n",
         ("frame size of",)),
        (PASS.replace("(void)c", '__asm__ volatile("pxor %%xmm0,%%xmm0" : : : )'),
         ("flicker_enter+0x0: 660fefc0 (pxor)", "vector", "-mgeneral-regs-only")),
        (PASS.replace("(void)c", '__asm__ volatile("nop; fldz" : : : )'), ("flicker_enter+0x1: d9ee", "floating")),
        ("static char a[9], b[9];\nstatic void copy(void) { void *d = a, *s = b; long n = 9;\n"
         '__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory"); }\n'
         + PASS.replace("(void)c", "(void)c; copy()"), ("f3a4 (rep movsb)", "string instruction", "direction flag")),
        (PASS.replace("(void)c", '__asm__ volatile("cld" : : : )'), ("flicker_enter+0x0: fc", "direction flag")),
        (PASS.replace("(void)c", '__asm__ volatile("mov %%gs:0,%%rax" : : : "rax")'), ("runtime's",)),
        ("static __thread long n;\n" + PASS.replace("(void)c", "n += flicker_nr(c)"), ("n is thread-local",)),
        ("static long n;\nstatic __attribute__((constructor)) void init(void) { n = 1; }\n"
         + PASS.replace("(void)c", "flicker_answer(c, n)"), ("constructors", "flicker_start")),
        ('static const char *const names[] = {"a", "b"};\n'
         + PASS.replace("(void)c", "flicker_answer(c, names[flicker_nr(c) & 1][0])"), ("names holds an address",)),
        (PASS.replace("(void)c", '__asm__ volatile(".byte 0x06" : : : )'), ("flicker_enter+0x0: 06", "no known")),
    ],
    ids=["syntax", "first-error", "no-enter", "libc", "frame", "vector", "x87", "string", "flag", "gs", "thread-local",
         "constructor", "pointers", "undecodable"],
)  # fmt: skip
def test_bad_sources(program: Path, tmp_path: Path, source: str, words: tuple[str, ...]) -> None:
    """A hook that cannot work is a usage error that says where and why: nothing goes wrong at run time instead."""
    hook = tmp_path / "hook.c"
    hook.write_text(HEAD.strip() + "\n#line 1\n" + source)
    line = refused(program, tmp_path, hook)
    assert line.startswith(f"flicker-aot: error: {hook}:"), line
    for word in words:
        assert word in line


def test_bad_objects(program: Path, tmp_path: Path) -> None:
    """Objects of careless compilers are refused: stack protector, vector code, absolute addresses."""
    careless = (
        HEAD + "int flicker_enter(struct flicker_call *c) { volatile char b[64]; b[flicker_nr(c)] = 1; return 1; }"
    )
    line = refused(program, tmp_path, compiled(tmp_path, careless, "-O2", "-fstack-protector-all"))
    assert "flicker_enter+" in line and "-fno-stack-protector" in line
    vector = HEAD + "struct s { long v[8]; } x, y;\n" + PASS.replace("(void)c", "if (flicker_nr(c)) x = y")
    assert "vector" in refused(program, tmp_path, compiled(tmp_path, vector, "-O2", "-fno-stack-protector"))
    absolute = HEAD + "static long x[8];\n" + PASS.replace("(void)c", "x[flicker_nr(c) & 7]++")
    fixed = (*CFLAGS, "-fno-pic", "-mcmodel=small")
    assert "flicker_enter holds an address" in refused(program, tmp_path, compiled(tmp_path, absolute, *fixed))
    assert "flicker_enter" in refused(program, tmp_path, compiled(tmp_path, "int x;", "-O2"))


def test_no_objects(program: Path, tmp_path: Path) -> None:
    """Something else than a source or an object: a program, text, nothing at all, a file of another name."""
    text = tmp_path / "text.o"
    text.write_text("text")
    executable = tmp_path / "executable.o"
    executable.write_bytes(program.read_bytes())
    cut = tmp_path / "cut.o"
    cut.write_bytes(compiled(tmp_path, HEAD + PASS, *CFLAGS).read_bytes()[:200])
    for hook in (text, executable, cut):
        assert "not an object file" in refused(program, tmp_path, hook)
    assert ".c" in refused(program, tmp_path, program)
    assert "no such file" in refused(program, tmp_path, tmp_path / "missing.c")


def test_without_compiler(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gcc the message says so."""
    hook = tmp_path / "hook.c"
    hook.write_text(HEAD + PASS)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "needs gcc, which is not installed" in refused(program, tmp_path, hook)
