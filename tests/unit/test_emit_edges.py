"""Sites at the edges of pages, sections and functions: the rewritten program does what the original does."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from flicker_aot.model.options import Options
from flicker_aot.model.plan import FillKind, Tactic
from flicker_aot.verify import verify

from .snippets import fake_stub, link, passes, run

# Leaves with the low byte of rbx, which the text before it computes.
EXIT = "mov %rbx, %rdi\n and $127, %edi\n mov $60, %eax\n syscall"
HEAD = ".globl _start\n.type _start, @function\n_start:\n mov $3, %ebx\n"
TAIL = "\n.size _start, . - _start\n"


def both(tmp_path: Path, text: str, *flags: str) -> tuple[tuple[int, bytes], list[tuple[Tactic, int, int, int]]]:
    """Status and output, equal for both; (tactic, start, site, end) of each patch."""
    source, out = link(text, tmp_path / "native", *flags), tmp_path / "rewritten"
    _, plan, _, data = passes(source, Options(), fake_stub())
    out.write_bytes(data)
    out.chmod(0o755)
    assert verify(source.read_bytes(), data) == ()
    native = run(source)
    assert run(out) == native
    return native, [(p.tactic, p.start, p.site.vaddr, p.end) for p in plan.patches]


@pytest.mark.parametrize("into", range(1, 7))
def test_window_across_a_page_boundary(tmp_path: Path, into: int) -> None:
    """Each way to lay a window of seven bytes over the end of a page."""
    call = "mov $102, %eax\n syscall\n add %rax, %rbx\n"
    text = f"{HEAD} jmp 1f\n .skip 4096 - {into} - (. - _start), 0x90\n1: {call} {EXIT}{TAIL}"
    _, (first, _) = both(tmp_path, text, "-Wl,--section-start=.text=0x401000")
    assert first[1] == 0x402000 - into and first[1] < 0x402000 < first[3]


def test_last_bytes_before_unmapped_memory(tmp_path: Path) -> None:
    """The site ends its segment: the window lies before it, and the answered way does not read behind it."""
    text = f"{HEAD} jmp 1f\n .skip 4096 - 16 - (. - _start), 0x90\n1: nopl (%rax)\n {EXIT.replace(chr(10), ';')}{TAIL}"
    size = "mov %rbx, %rdi\n and $127, %edi\n mov $60, %eax\n syscall"
    assert size == EXIT  # 3 + 3 + 5 + 2 bytes and a nop of 3: sixteen
    _, (last,) = both(tmp_path, text, "-Wl,--section-start=.text=0x401000")
    assert last[0] is Tactic.WINDOW and last[2] + 2 == last[3] == 0x402000


@pytest.mark.parametrize(
    "neighbour",
    [
        *(
            "rep nop",
            "pause",
            ".byte 0xf3, 0x0f, 0x1f, 0x00",
            ".byte 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0",
        ),
        *(".byte 0xf3, 0x0f, 0x1e, 0xc8", ".byte 0xf2, 0x90", ".byte 0x66, 0x90", "rex.w nop"),
    ],
)
def test_prefixed_nops_beside_a_site(tmp_path: Path, neighbour: str) -> None:
    """rep-prefixed nops (pause, and the reserved space of shadow stack instructions) move unchanged."""
    text = (
        f"{HEAD} jmp 1f\n .skip 7, 0x90\n1: push $102\n pop %rax\n {neighbour}\n syscall\n {neighbour}\n {EXIT}{TAIL}"
    )
    _, patches = both(tmp_path, text)
    assert patches[0][0] is Tactic.WINDOW


def test_no_window_over_the_next_functions_start(tmp_path: Path) -> None:
    """A function that ends with its system call: the next one's first instruction is not hidden under a jump."""
    text = f"""{HEAD} call leaves
    mov $60, %eax
    syscall
    {TAIL}
    .type leaves, @function
leaves:
    call next
    mov $5, %edi
    mov $102, %al
    jmp 1f
    .fill 40, 1, 0x98 # no padding
1:  endbr64
    syscall
    .size leaves, . - leaves
    .type next, @function
next:
    xor %eax, %eax
    ret
    .size next, . - next
    """
    source = link(text, tmp_path / "native")
    _, plan, _, _ = passes(source, Options(), fake_stub())
    both(tmp_path, text)
    patch = plan.patches[1]
    assert (patch.tactic, patch.end) == (Tactic.TRAP, patch.site.end)


def test_back_to_back(tmp_path: Path) -> None:
    """Three sites in a row, and a jump to the middle one: every call is made, once."""
    text = f"{HEAD} mov $102, %eax\n syscall\n 1: syscall\n syscall\n mov $102, %eax\n dec %ebx\n jnz 1b\n {EXIT}{TAIL}"
    _, patches = both(tmp_path, text)
    assert len(patches) == 4
    assert all(a[3] <= b[1] for a, b in pairwise(patches))


@pytest.mark.parametrize("branch", ["loop", "loope", "loopne", "jrcxz", "jecxz"])
def test_counted_branch_behind_a_site(tmp_path: Path, branch: str) -> None:
    """rcx holds the address behind the site: `loop` and its relatives are displaced and go the same way."""
    text = f"{HEAD} test %ebx, %ebx\n endbr64\n syscall\n {branch} 1f\n add $7, %ebx\n 1: add $4, %ebx\n {EXIT}{TAIL}"
    (status, _), patches = both(tmp_path, text)
    assert status in (7, 14) and patches[0][0] is Tactic.WINDOW


def test_displaced_call_pushes_the_original_return_address(tmp_path: Path) -> None:
    """The only instruction beside the site is a call; its callee sees the address that it would natively see."""
    text = f"""{HEAD} jmp 1f
    .fill 40, 1, 0x98
1:  endbr64
    syscall
    call callee
2:  jmp 4f
    .fill 4, 1, 0x98
4:  add $1, %ebx
    {EXIT}{TAIL}
    .type callee, @function
callee:
    lea 2b(%rip), %rax
    cmp %rax, (%rsp)
    jne 3f
    add $8, %ebx
3:  ret
    .size callee, . - callee
    """
    for flags in ((), ("-static-pie",)):
        (status, _), patches = both(tmp_path, text, *flags)
        assert status == 12 and patches[0][0] is Tactic.WINDOW and patches[0][3] - patches[0][2] == 7


def test_fills_lead_on(tmp_path: Path) -> None:
    """A hidden way into the middle of a window (a computed address) traps there, and goes on with the copy."""
    text = f"""{HEAD} lea _start(%rip), %rcx
    mov $102, %eax
    add $(2f - _start), %rcx
    test %ebx, %ebx
    js 1f
    jmp *%rcx
1:  mov $7, %ebx
    nop
2:  syscall
    {EXIT}{TAIL}
    """
    source = link(text, tmp_path / "native")
    _, plan, _, _ = passes(source, Options(), fake_stub())
    kinds = {f.kind for p in plan.patches for f in p.fills}
    both(tmp_path, text)
    assert kinds & {FillKind.UD2, FillKind.TRAP1}
