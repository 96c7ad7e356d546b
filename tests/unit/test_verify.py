"""The verifier accepts what the rewriter makes and rejects it once anything in it is wrong."""

from __future__ import annotations

import copy
import json
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flicker_aot.verify import rawelf, verify
from flicker_aot.verify.second_reader import check_second_reader, read_by_lief
from flicker_aot.verify.subject import make_subject
from flicker_aot.verify.tables import CONFIG_SIZE

from ..malformed.conftest import assemble
from .pairs import Pair, flipped, make_pair, quick_verifier

# Windows of every kind: agnostic and cfg-dependent, a RIP-relative operand, fills that trap, a copy that branches, a
# far branch into a window, and a site with no room at all (trap).
SHAPES = """
    .macro function name
    .type \\name, @function
    .size \\name, \\name\\()_end - \\name
\\name:
    .endm
    .globl _start
    function _start
    mov $1, %edi
    lea text(%rip), %rsi
    mov $6, %edx
    mov $1, %eax
    syscall
    call ripafter
    call behind
    call loops
    call tight
    call shorty
    call back2back
    call far
    mov $39, %eax
    call opened
    mov $39, %eax
    call padded
    mov $39, %eax
    mov $1, %edi
    call successor
    mov $39, %eax
    call neighbour
    mov $39, %eax
    call tiny
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
_start_end:
    function ripafter
    mov number(%rip), %eax
    syscall
    ret
ripafter_end:
    function behind
    push $39
    pop %rax
    syscall
    mov %rax, datum(%rip)
    ret
behind_end:
    function loops
    mov $3, %ecx
1:  push %rcx
    push $39
    pop %rax
    syscall
    pop %rcx
    test %rax, %rax
    js 2f
    loop 1b
2:  ret
loops_end:
    function tight
    xor %eax, %eax
    mov $39, %al
    syscall
    jmp shorty
tight_end:
    function shorty
    jmp 1f
    .p2align 4
1:  mov $39, %al
    movzbl %al, %eax
    syscall
    test %eax, %eax
    je 1b
    ret
shorty_end:
    function back2back
    push $39
    pop %rax
    syscall
    syscall
    push $39
    pop %rax
    syscall
    ret
back2back_end:
    function far
    test %rsp, %rsp
    jz 1f
    mov $39, %eax
again: syscall
    ret
    .fill 200, 1, 0x98 # cwtl, which nothing reaches: no padding
1:  mov $102, %eax
    jnz again
    jmp *%rax
far_end:
    # A short jump to padding; evictions of what follows, with a jump back, and of what stands before; a trap.
    function padded
    jmp 1f
    .skip 16, 0xcc
1:  endbr64
    syscall
    ret
    .fill 150, 1, 0x98
padded_end:
    function successor
    endbr64
    syscall
entered: movabs $0x11223344556677, %rdx
    dec %edi
    jns entered
    ret
    .fill 150, 1, 0x98
successor_end:
    function neighbour
    movabs $0x11223344556677, %rdx
    endbr64
    syscall
    ret
    .fill 150, 1, 0x98
neighbour_end:
    function tiny
    endbr64
    syscall
    ret
    .fill 150, 1, 0x98
tiny_end:
    function opened
    endbr64
    syscall
1:  mov %rax, %rdi
2:  .byte 0xb9, 0xeb, 1b - 2b - 3, 0, 0 # mov $x, %ecx, whose x would be a jump to 1
    ret
opened_end:
    .section .rodata
text: .ascii "hello\\n"
number: .long 39
    .data
    .quad entered
datum: .quad 0
"""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(tmp_path_factory.mktemp("shapes"), "shapes", "-static", source=SHAPES)


@pytest.fixture(scope="module")
def pair(shapes: Path) -> Pair:
    return make_pair(shapes, shapes.with_name("rewritten"))


@pytest.fixture
def quick() -> Iterator[None]:
    """The verifier as ``pairs.quick_verifier`` speeds it up."""
    with quick_verifier():
        yield


# ---------------------------------------------------------------------------------------------------------------------
# What is good


def test_good_file(pair: Pair, shapes: Path) -> None:
    """A rewriting is accepted, and runs; it has windows of all kinds, so that the tests below reach every rule."""
    assert verify(pair.original, pair.output) == ()
    ran = subprocess.run([shapes.with_name("rewritten")], capture_output=True, timeout=20)
    assert (ran.returncode, ran.stdout) == (0, b"hello\n")
    assert {s.soundness for s in pair.claim.sites} == {"agnostic", "closed", "cfg-dependent", "trap"}
    assert {s.tactic for s in pair.claim.sites} == {"window", "short", "successor", "neighbour", "trap"}
    assert any(s.before for s in pair.claim.sites)
    assert any(s.fills for s in pair.claim.sites)
    assert pair.claim.retargets


def test_good_file_with_leave(shapes: Path, tmp_path: Path) -> None:
    """The longer trampolines of a hook with a leave part are understood, too."""
    hook = tmp_path / "hook.c"
    hook.write_text(
        '#include "flicker_hook.h"\n'
        "int flicker_enter(struct flicker_call *c) { (void)c; return FLICKER_CALL; }\n"
        "void flicker_leave(struct flicker_return *r) { flicker_set_result(r, flicker_result(r)); }\n"
    )
    made = make_pair(shapes, tmp_path / "out", "--hook", str(hook))
    assert made.claim.template["has_leave"] == 1
    assert verify(made.original, made.output) == ()
    entry = made.offset(made.claim.sites[0].entry)
    for label in ("vload", "vpush", "vcall", "apop"):
        at = entry + made.claim.template[label]
        assert made.rejects(flipped(made.output, at, 0)), label


def test_other_input(pair: Pair) -> None:
    """The output of another input is rejected for that reason."""
    (finding,) = verify(pair.original + b"\0", pair.output)
    assert finding.code == "input"


def test_never_raises(pair: Pair) -> None:
    """Whatever the two files are, the answer is findings and never an exception."""
    nonsense = (b"", b"\x7fELF", b"\x7fELF\2\1" + bytes(58), pair.original, pair.output[: len(pair.output) // 2])
    for output in nonsense:
        assert verify(pair.original, output)
        assert verify(output, output)


# ---------------------------------------------------------------------------------------------------------------------
# Every byte that the runtime or the CPU reads, damaged


def damaged(pair: Pair, ranges: list[tuple[int, int]], bits: Callable[[int], tuple[int, ...]]) -> list[int]:
    """Offsets in ``ranges`` at which a flipped bit went unnoticed."""
    return [
        offset
        for start, end in ranges
        for offset in range(start, end)
        for bit in bits(offset)
        if not pair.rejects(flipped(pair.output, offset, bit))
    ]


@pytest.mark.usefixtures("quick")
def test_every_bit_of_windows_and_trampolines(pair: Pair) -> None:
    """No bit of a window, a trampoline or a retargeted branch can differ unnoticed."""
    ranges = [(s.start - 0x400000, s.end - 0x400000) for s in pair.claim.sites]  # text is mapped as it is in the file
    ranges += [(s.hole[1] - 0x400000, s.hole[2] - 0x400000) for s in pair.claim.sites if s.hole]
    assert pair.output[ranges[0][0]] == 0xE9
    ranges += [(pair.offset(s.trampoline), pair.offset(s.trampoline) + s.trampoline_size) for s in pair.claim.sites]
    ranges += [(branch - 0x400000, branch - 0x400000 + 5) for branch, _, _ in pair.claim.retargets]
    assert damaged(pair, ranges, lambda offset: tuple(range(8))) == []


@pytest.mark.usefixtures("quick")
def test_every_byte_of_headers_tables_and_configuration(pair: Pair) -> None:
    """No byte of the ELF header, of R (program headers, tables, note) or of flk_config can differ unnoticed."""
    r, config = pair.claim.segments["r"], pair.offset(pair.claim.config)
    ranges = [(0, 64), (r.offset, r.offset + 0x400), (config, config + CONFIG_SIZE)]
    assert damaged(pair, ranges, lambda offset: (offset % 8,)) == []


@pytest.mark.usefixtures("quick")
def test_bytes_of_the_input(pair: Pair) -> None:
    """No byte of the input outside the owned ones can differ, and nothing stands in the hole behind it."""
    offsets = [*range(64, pair.claim.segments["r"].offset, 31)]
    assert damaged(pair, [(offset, offset + 1) for offset in offsets], lambda offset: (offset % 8,)) == []


@pytest.mark.usefixtures("quick")
def test_cut_off(pair: Pair) -> None:
    """An output that ends early is rejected, wherever it ends."""
    for size in range(0, len(pair.output), 997):
        assert pair.rejects(pair.output[:size]), size


# ---------------------------------------------------------------------------------------------------------------------
# A note that lies


def with_note(pair: Pair, document: dict[str, Any]) -> bytes:
    """The output with another note in the place of its own, well-formed and with the right sizes in both headers."""
    elf = rawelf.read_raw(pair.output, "output")
    segment = elf.segments[pair.claim.note_index]
    section = next(i for i, s in enumerate(elf.sections) if (s.offset, s.vaddr) == (segment.offset, segment.vaddr))
    packed = zlib.compress(json.dumps(document, separators=(",", ":"), sort_keys=True).encode(), 9)
    note = struct.pack("<III", 12, len(packed), 1) + b"flicker-aot\0" + packed + bytes(-len(packed) % 4)
    out = bytearray(pair.output)
    room = out[segment.offset + segment.filesz : segment.offset + max(segment.filesz, len(note))]
    assert not any(room), "no room for a longer note"
    out[segment.offset : segment.offset + max(segment.filesz, len(note))] = note.ljust(segment.filesz, b"\0")
    struct.pack_into("<QQ", out, elf.phoff + 56 * pair.claim.note_index + 32, len(note), len(note))
    struct.pack_into("<Q", out, elf.shoff + 64 * section + 32, len(note))
    return bytes(out)


def numbers_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every number in a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers_in(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers_in(inner, (*path, index))
    elif isinstance(value, int):
        yield path


@pytest.mark.usefixtures("quick")
def test_note_is_no_authority(pair: Pair) -> None:
    """Each number of the note is compared with the files: none can be another one, but for those that describe nothing
    in them (the system call numbers that were found)."""
    assert verify(pair.original, with_note(pair, pair.claim.document)) == ()
    believed = []
    for path in numbers_in(pair.claim.document):
        if "numbers" in path or "unknown" in path:
            continue
        document = copy.deepcopy(pair.claim.document)
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] += 1
        if not pair.rejects(with_note(pair, document)):
            believed.append(path)
    assert believed == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("key", ["sites", "segments", "runtime", "template", "retargets", "kept", "input_sha256"])
def test_note_without_a_part(pair: Pair, key: str) -> None:
    """A note that lacks a part, or has something else in its place, is a finding and no crash."""
    without = {k: v for k, v in pair.claim.document.items() if k != key}
    for document in (without, without | {key: 1}, without | {key: [None]}, without | {key: {"a": []}}):
        assert pair.rejects(with_note(pair, document)), document


@pytest.mark.usefixtures("quick")
def test_forgotten_site(pair: Pair) -> None:
    """A window that the note does not claim is a changed byte without an owner."""
    document = copy.deepcopy(pair.claim.document)
    del document["sites"][2]
    codes = {f.code for f in verify(pair.original, with_note(pair, document))}
    assert {"bytes", "table"} <= codes


@pytest.mark.usefixtures("quick")
def test_dishonest_class(pair: Pair) -> None:
    """A window whose jump hides an instruction start is not agnostic, and the verifier says which one it hides."""
    document = copy.deepcopy(pair.claim.document)
    for real, claimed in (("cfg-dependent", "agnostic"), ("cfg-dependent", "closed"), ("closed", "agnostic")):
        site = next(s for s in document["sites"] if s["class"] == real)
        site["class"] = claimed
        findings = verify(pair.original, with_note(pair, document))
        assert [f.code for f in findings] == ["class"]
        assert findings[0].vaddr == site["site"]
        site["class"] = real


def test_second_reader_disagrees(pair: Pair) -> None:
    """LIEF compares for itself: told of other headers than those in the file, it contradicts."""
    raw = rawelf.read_raw(pair.output, "output")
    told = replace(raw, entry=raw.entry + 1, segments=(raw.segments[0]._replace(memsz=1), *raw.segments[1:]))
    subject = make_subject(rawelf.read_raw(pair.original, "input"), told, pair.claim, ())
    assert [f.code for f in check_second_reader(subject, read_by_lief)] == ["reader", "reader"]
