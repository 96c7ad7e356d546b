"""Each kind of root by itself: a system call that nothing else leads to is proved; its evidence begins with the root.

The program has no symbols but where these are the root, so that no other kind can serve.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.model.code import Verdict

from .inputs import assemble

CODE = "mov $39, %eax\nsyscall\nret\n"
START = """
    .globl _start
_start: {first}
    mov $60, %eax
    syscall
    ud2
    .balign 16
    .skip 512, 0x90
"""
LSDA = """
    .section .gcc_except_table, "a"
lsda: .byte 0xff, 0xff, 0x01
    .uleb128 4
    .uleb128 0, 5, pad - hidden, 0
"""
PAD = f".cfi_startproc\n.cfi_lsda 0x1b, lsda\nhidden: call _start\nud2\npad: {CODE}.cfi_endproc\n{LSDA}"
CASE = "cmp $1, %edi\nja _start\n"
TABLE = CASE + "mov %edi, %edi\nlea table(%rip), %rdx\nmovslq (%rdx,%rdi,4), %rax\nadd %rdx, %rax\njmp *%rax\nud2\n"
OFFSETS = ".section .rodata\n.balign 4\ntable: .long one - table, two - table\n"
FIXED, MOVABLE = ("-no-pie",), ("-static-pie",)

# kind -> (first instruction of _start, what follows its end, linker flags, evidence)
ROOTS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "entry": (CODE, "", FIXED, "entry"),
    "symbol": ("", f".type f, @function\nf: {CODE}.size f, . - f", ("-Wl,-z,norelro",), "symbol f"),
    "dynamic symbol": ("", f".globl f\n.type f, @function\nf: {CODE}.size f, . - f", ("-shared",), "symbol f"),
    "FDE": ("", f".cfi_startproc\n{CODE}.cfi_endproc", FIXED, "fde 0x"),
    "landing pad": ("", PAD, FIXED, "landing pad 0x"),
    "init array": ("", f'.Lf: {CODE}.section .init_array, "aw"\n.quad .Lf', FIXED, "init array"),
    "fini array": ("", f'.Lf: {CODE}.section .fini_array, "aw"\n.quad .Lf', MOVABLE, "fini array"),
    "DT_INIT": ("", f".globl f\n.hidden f\nf: {CODE}", ("-shared", "-Wl,-init,f"), "DT_INIT"),
    "call": ("call .Lf", f".Lf: {CODE}", FIXED, "call at 0x"),
    "lea": ("lea .Lf(%rip), %rdi", f".Lf: {CODE}", MOVABLE, "lea at 0x"),
    "mov of an address": ("mov $.Lf, %edi", f".Lf: {CODE}", FIXED, "address at 0x"),
    "push of an address": ("push $.Lf", f".Lf: {CODE}", FIXED, "address at 0x"),
    "store of an address": ("movq $.Lf, 8(%rsp)", f".Lf: {CODE}", FIXED, "address at 0x"),
    "movabs": ("movabs $.Lf, %rax", f".Lf: {CODE}", FIXED, "address at 0x"),
    "pointer in data": ("", f".Lf: {CODE}.data\n.quad .Lf", FIXED, "code pointer 0x"),
    "relocated pointer": ("", f".Lf: {CODE}.data\n.quad .Lf", MOVABLE, "code pointer 0x"),
    "packed relocation": (
        "",
        f".Lf: {CODE}.data\n.quad .Lf",
        (*MOVABLE, "-Wl,-z,pack-relative-relocs"),
        "code pointer 0x",
    ),
    "jump table": (TABLE + "one: ret\ntwo: " + CODE, OFFSETS, FIXED, "entry"),
    "section .init": ("", f'.section .init, "ax"\n.skip 8, 0x90\n{CODE}', FIXED, "section .init"),
}


@pytest.mark.parametrize("kind", ROOTS)
def test_root(kind: str, tmp_path: Path) -> None:
    """The system call is a site by this root: numbers and chain say so."""
    first, behind, flags, evidence = ROOTS[kind]
    stripped = ("-Wl,--strip-debug",) if kind == "symbol" else ("-Wl,--strip-all",)
    image = assemble(tmp_path, START.format(first=first) + behind, *flags, *stripped)
    code = discover(image)
    (site,) = [s for s in code.sites if s.numbers == (39,)]
    (candidate,) = [c for c in code.candidates if c.vaddr == site.vaddr]
    assert candidate.verdict is Verdict.SITE
    assert candidate.evidence[0].startswith(evidence), candidate.evidence


def test_path_to_a_site_is_told(tmp_path: Path) -> None:
    """The branches between root and site are named, in order; a jump table by its jump."""
    first = TABLE + f"one: ret\ntwo: test %esi, %esi\njne three\nud2\nthree: {CODE}"
    image = assemble(tmp_path, START.format(first=first) + OFFSETS, "-no-pie", "-Wl,--strip-all")
    (candidate,) = [c for c in discover(image).candidates if c.evidence[1].count(", ") == 1]
    text = image.read(image.entry, 200)
    jump, branch = image.entry + text.index(b"\xff\xe0"), image.entry + text.index(b"\x85\xf6") + 2
    assert candidate.evidence == ("entry", f"path from {image.entry:#x} over the branches at {jump:#x}, {branch:#x}")
