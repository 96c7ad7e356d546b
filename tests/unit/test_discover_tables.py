"""Jump tables of gcc and clang against the relocations that made them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flicker_aot.discover.flow import descend
from flicker_aot.model.code import Flow
from flicker_aot.x86.decode import sweep

from .inputs import assemble, compile_text, load, objdump_insns, symbol

SWITCH = """
extern int f0(int), f1(int), f2(int);
int choose(int what, int x) {
    switch (what) {
    case 0: return f0(x) + 1;
    case 1: return f1(x) * 3;
    case 2: return f2(x) - 5;
    case 3: return f0(x + 1) ^ 9;
    case 5: return f1(x - 1) | 4;
    case 6: return f2(x * 7);
    case 7: return f0(x / 3) & 1;
    case 9: return f1(x) << 2;
    default: return 77;
    }
}
int f0(int x) { return x; }
int f1(int x) { return x + 1; }
int f2(int x) { return x + 2; }
void _start(void) { for (;;) choose(1, 2); }
"""
FLAGS = ("-O2", "-nostdlib", "-static", "-ffreestanding", "-fno-inline", "-fno-ipa-icf", "-fno-ipa-cp")


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("gcc", ("-fno-pie", "-no-pie")),
        ("gcc", ("-fPIE", "-static-pie")),
        ("gcc", ("-fPIE", "-static-pie", "-fcf-protection=full")),
        ("gcc", ("-fno-pie", "-no-pie", "-Os")),
        ("clang", ("-fno-pie", "-no-pie")),
        ("clang", ("-fPIE", "-static-pie")),
    ],
)
def test_switch_is_resolved(compiler: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    """The table has one entry for each value 0..9, is bounded, and every instruction of the function is reached."""
    usable = [f for f in FLAGS if compiler == "gcc" or not f.startswith("-fno-ipa")]
    path = compile_text(tmp_path, "switch", SWITCH, compiler, *usable, *flags)
    image = load(path)
    choose = next(s for s in image.symbols if image.symbol_name(s) == "choose")
    decoded = descend(image, choose.vaddr, choose.vaddr + choose.size, [choose.vaddr])
    assert any(i.flow is Flow.INDIRECT_JUMP for i in decoded.insns.values()), f"{compiler} made no jump table"
    assert decoded.complete and decoded.clean
    (table,) = decoded.tables
    assert table.bounded and len(table.targets) == 10
    assert table.targets[4] == table.targets[8]  # both are the default
    assert len(set(table.targets)) == 9
    starts = objdump_insns(path)
    assert all(t in starts for t in table.targets)
    padding = (b"\x0f\x1f", b"\x66", b"\x90", b"\x2e")
    unreached = [i for i in sweep(image.read(choose.vaddr, choose.size), choose.vaddr) if i.vaddr not in decoded.insns]
    assert all(i.data.startswith(padding) for i in unreached)


HAND_MADE = """
    .globl _start
    .type _start, @function
_start:
{code}
.Ldefault: ret
.La: mov $1, %eax
    ret
.Lb: mov $2, %eax
    ret
    .size _start, . - _start
    .section .rodata
table: {entries}
    .quad -1
"""
RELATIVE = ".long .La - table, .Lb - table"
ABSOLUTE = ".quad .La, .Lb"

SHAPES = {
    "go": ("cmp $2, %rcx\njae .Ldefault\nlea table(%rip), %rdx\njmp *(%rdx,%rcx,8)", ABSOLUTE, True),
    "loaded": ("cmp $1, %ecx\nja .Ldefault\nmov table(,%rcx,8), %rdx\njmp *%rdx", ABSOLUTE, True),
    "swapped": (
        "cmp $1, %ecx\nja .Ldefault\nlea table(%rip), %rdx\nmovslq (%rdx,%rcx,4), %rax\nadd %rax, %rdx\njmp *%rdx",
        RELATIVE,
        True,
    ),
    "copied": (
        "cmp $1, %edi\nja .Ldefault\nmov %edi, %eax\nlea table(%rip), %rdx\n"
        "movslq (%rdx,%rax,4), %rax\nadd %rdx, %rax\nnotrack jmp *%rax",
        RELATIVE,
        True,
    ),
    "in memory": (
        "cmpl $1, 8(%rdi)\nja .Ldefault\nmov 8(%rdi), %eax\njmp *table(,%rax,8)",
        ABSOLUTE,
        True,
    ),
    "jumped to": ("cmp $1, %ecx\njbe 1f\nret\n1: jmp *table(,%rcx,8)", ABSOLUTE, True),
    "no bound": ("jmp *table(,%rcx,8)", ABSOLUTE, False),
    "bound of something else": ("cmp $1, %esi\nja .Ldefault\njmp *table(,%rcx,8)", ABSOLUTE, False),
    "changed after the comparison": (
        "cmp $1, %ecx\nja .Ldefault\nadd %esi, %ecx\njmp *table(,%rcx,8)",
        ABSOLUTE,
        False,
    ),
    "wrong side": ("cmp $1, %ecx\njbe .Ldefault\njmp *table(,%rcx,8)", ABSOLUTE, False),
    "other flags": ("cmp $1, %ecx\ntest %esi, %esi\nja .Ldefault\njmp *table(,%rcx,8)", ABSOLUTE, False),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str, tmp_path: Path) -> None:
    """Each shape gives both targets; it counts as resolved only where the comparison really bounds the index."""
    code, entries, bounded = SHAPES[shape]
    image = assemble(tmp_path, HAND_MADE.format(code=code, entries=entries), "-no-pie")
    start = next(s for s in image.symbols if image.symbol_name(s) == "_start")
    decoded = descend(image, start.vaddr, start.vaddr + start.size, [start.vaddr])
    (table,) = decoded.tables
    assert (table.vaddr, table.bounded) == (symbol(image, "table"), bounded)
    assert [image.read(t, 5).hex() for t in table.targets] == ["b801000000", "b802000000"]
    assert decoded.complete is bounded


def test_writable_table_is_not_believed(tmp_path: Path) -> None:
    """A table that the program may change proves nothing about where the jump leads."""
    text = HAND_MADE.format(code="cmp $1, %ecx\nja .Ldefault\njmp *table(,%rcx,8)", entries=ABSOLUTE)
    image = assemble(tmp_path, text.replace(".section .rodata", ".data"), "-no-pie")
    start = next(s for s in image.symbols if image.symbol_name(s) == "_start")
    decoded = descend(image, start.vaddr, start.vaddr + start.size, [start.vaddr])
    assert decoded.tables == () and len(decoded.unresolved) == 1


def test_jump_through_a_pointer_is_unresolved(tmp_path: Path) -> None:
    """A tail call through a register or a pointer leaves the function's flow incomplete."""
    for code in ("jmp *%rax", "jmp *8(%rdi)", "jmp *table(%rip)"):
        image = assemble(tmp_path, HAND_MADE.format(code=code, entries=ABSOLUTE), "-no-pie")
        start = next(s for s in image.symbols if image.symbol_name(s) == "_start")
        decoded = descend(image, start.vaddr, start.vaddr + start.size, [start.vaddr])
        assert decoded.tables == () and not decoded.complete


PATHS = {
    "join behind the check": (
        "cmp $1, %ecx\nja .Ldefault\n2: jmp *table(,%rcx,8)\n.Lx: mov %esi, %ecx\njmp 2b",
        "test %edi, %edi\nje .Lx\n",
        False,
    ),
    "both ways checked": (
        "cmp $1, %ecx\nja .Ldefault\n2: jmp *table(,%rcx,8)\n.Lx: cmp $0, %ecx\nja .Ldefault\njmp 2b",
        "test %edi, %edi\nje .Lx\n",
        True,
    ),
    "two tables": (
        "lea other(%rip), %rdx\n2: cmp $1, %ecx\nja .Ldefault\njmp *(%rdx,%rcx,8)\n.Lx: lea table(%rip), %rdx\njmp 2b",
        "test %edi, %edi\nje .Lx\n",
        None,
    ),
    "base set before a loop": (
        "lea table(%rip), %rbx\n2: call .Ldefault\nmov %eax, %ecx\ncmp $1, %ecx\nja 2b\njmp *(%rbx,%rcx,8)",
        "",
        True,
    ),
    "base is a result": (
        "lea table(%rip), %rax\ncall .Ldefault\ncmp $1, %ecx\nja .Ldefault\njmp *(%rax,%rcx,8)",
        "",
        None,
    ),
    "index in memory changed": (
        "cmpl $1, 8(%rdi)\nja .Ldefault\nmov %esi, (%rdx)\nmov 8(%rdi), %eax\njmp *table(,%rax,8)",
        "",
        False,
    ),
    "narrow comparison": ("cmp $1, %cl\nja .Ldefault\njmp *table(,%rcx,8)", "", False),
    "narrow index": ("cmp $1, %cl\nja .Ldefault\nmovzbl %cl, %ecx\njmp *table(,%rcx,8)", "", True),
    "mask": ("and $1, %ecx\njmp *table(,%rcx,8)", "", True),
    "called in the middle": (
        "cmp $1, %ecx\nja .Ldefault\n2: jmp *table(,%rcx,8)\n.Lx: call 2b\nret",
        "je .Lx\n",
        False,
    ),
}


@pytest.mark.parametrize("name", PATHS)
def test_every_path_counts(name: str, tmp_path: Path) -> None:
    """A table is bounded only where every path that leads to the jump bounds the index, and has one base."""
    code, start, bounded = PATHS[name]
    text = HAND_MADE.format(code=start + code, entries=ABSOLUTE) + "other: .quad .Ldefault, .Ldefault\n"
    image = assemble(tmp_path, text, "-no-pie")
    begin = next(s for s in image.symbols if image.symbol_name(s) == "_start")
    decoded = descend(image, begin.vaddr, begin.vaddr + begin.size, [begin.vaddr])
    assert [t.bounded for t in decoded.tables] == ([] if bounded is None else [bounded])
    assert decoded.complete is bool(bounded)
    if bounded:
        assert [image.read(t, 5).hex() for t in decoded.tables[0].targets] == ["b801000000", "b802000000"]
