"""Damage to ELF files, each kind a function. In: a file's bytes, a source of chance. Out: the bytes changed in place.

Beyond header fields this damages what headers lead to (symbols, strings, notes, unwind tables, code), moves segments
onto each other, and makes counts and offsets absurd.
"""

from __future__ import annotations

import hashlib
import random
import re
import struct
from collections.abc import Callable

from .test_hostile import EXTREMES, SHDR_FIELDS, header_fields

# All that discovery reads: symbols, unwind tables with an LSDA, notes, a jump table, relocations of a static PIE.
SOURCE = """
    .globl _start
    .type _start, @function
_start:
    .cfi_startproc
    .cfi_personality 0x9b, personality
    .cfi_lsda 0x1b, lsda
    mov $1, %edi
    lea text(%rip), %rsi
    mov $6, %edx
    mov $1, %eax
    syscall
    cmp $2, %edi
    ja 2f
    lea table(%rip), %rdx
    movslq (%rdx,%rdi,4), %rax
    add %rdx, %rax
    jmp *%rax
1:  call quiet
2:  mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .cfi_endproc
    .size _start, . - _start
    .type quiet, @function
quiet:
    .cfi_startproc
    push %rbx
    .cfi_adjust_cfa_offset 8
    mov $39, %eax
    syscall
    cmp $0, %rax
    jle quiet
    pop %rbx
    .cfi_adjust_cfa_offset -8
    ret
    .cfi_endproc
    .size quiet, . - quiet
    .section .rodata
    .p2align 2
table: .long 1b - table, 2b - table, 1b - table
text: .ascii "hello\\n"
    .section .gcc_except_table, "a"
lsda: .byte 0xff, 0xff, 0x01, 4, 0, 4, 2, 0
    .data
    .hidden personality
personality: .quad quiet
"""

Damage = Callable[[bytearray, random.Random], None]


def _value(choose: random.Random, size: int) -> bytes:
    value = choose.choice([choose.choice(EXTREMES), choose.getrandbits(64), choose.randrange(256)])
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def header(data: bytearray, choose: random.Random) -> None:
    """Another value in a header field."""
    fields = [f for f in header_fields(bytes(data)) if f[0] + f[1] <= len(data)]
    if fields:
        offset, size = choose.choice(fields)
        data[offset : offset + size] = _value(choose, size)


def content(data: bytearray, choose: random.Random) -> None:
    """Some bytes of one section's content: tables that are read by their own rules."""
    sections = _sections(data)
    if sections:
        offset, size = choose.choice(sections)
        width = choose.choice((1, 1, 2, 4, 8))
        at = offset + choose.randrange(size)
        data[at : at + width] = _value(choose, width)[: max(len(data) - at, 0)]


def flip(data: bytearray, choose: random.Random) -> None:
    """One bit anywhere."""
    data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def overlap(data: bytearray, choose: random.Random) -> None:
    """A segment at the address, or the offset, of another one, shifted a little."""
    phoff, phnum = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    if phoff + 56 * phnum > len(data) or phnum < 2:
        return
    here, there = (phoff + 56 * i for i in choose.sample(range(phnum), 2))
    for field in choose.choice(((8,), (16,), (8, 16), (32, 40), (8, 16, 32, 40))):
        value = struct.unpack_from("<Q", data, there + field)[0] + choose.choice((0, 0, 1, 8, 0x800, 0x1000, -0x1000))
        struct.pack_into("<Q", data, here + field, value & (1 << 64) - 1)


def count(data: bytearray, choose: random.Random) -> None:
    """Absurd counts: program and section headers, the extended count in section 0, sizes and entry sizes of tables."""
    kind = choose.randrange(4)
    shoff, shnum = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    if kind == 0:
        struct.pack_into("<H", data, 56, choose.choice((0, 0xFFFF, 0xFFFE, 73, 74, 70, 500)))
    elif kind == 1:
        struct.pack_into("<H", data, 60, choose.choice((0, 0xFFFF, 0xFF00, 1, 2)))
    elif shnum and shoff + 64 * shnum <= len(data):
        row = shoff if kind == 2 else shoff + 64 * choose.randrange(shnum)
        offset, size = choose.choice(SHDR_FIELDS)
        data[row + offset : row + offset + size] = _value(choose, size)


def move(data: bytearray, choose: random.Random) -> None:
    """A piece of the file copied over another place."""
    size = choose.choice((4, 16, 56, 64, 300))
    if len(data) > size:
        here, there = choose.randrange(len(data) - size), choose.randrange(len(data) - size)
        data[here : here + size] = data[there : there + size]


def cut(data: bytearray, choose: random.Random) -> None:
    """Cut off, or something appended."""
    if choose.random() < 0.5:
        del data[choose.randrange(64, len(data)) :]
    else:
        data += choose.randbytes(choose.choice((1, 7, 64, 5000)))


DAMAGES: tuple[Damage, ...] = (header, header, content, content, content, flip, overlap, count, move, cut)


def message_kind(message: str) -> str:
    """The same eight hexadecimal digits for messages that differ in the numbers that they name."""
    return hashlib.sha256(re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{6,}\b|\d+", "N", message).encode()).hexdigest()[:8]


def _sections(data: bytearray) -> list[tuple[int, int]]:
    """(offset, size) of the contents in the file."""
    shoff, shnum = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    if shoff + 64 * shnum > len(data):
        return []
    rows = [struct.unpack_from("<IIQQQQ", data, shoff + 64 * i) for i in range(shnum)]
    return [(row[4], row[5]) for row in rows if row[1] not in (0, 8) and row[5] > 0 and row[4] + row[5] <= len(data)]
