"""What a hook may not do. In: its object file, and the runtime linked with it. Out: nothing, or a UsageError.

A hook runs between two instructions of the program. The runtime saves the general registers only, and fs, gs, the
direction flag and the floating-point state are the program's; so code that touches one of them breaks the program in
a way that nobody would trace back to the hook. (Vector and floating-point registers are saved around functions that say
so: FLICKER_VECTORS in flicker_hook.h.) Compilers are told so by flags, but objects and inline assembly come
from elsewhere: each instruction is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from .errors import InternalError, UsageError
from .model.image import ET_REL, PT_LOAD, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SHT_SYMTAB
from .x86.decode import InsnDetail, Mem, cs, detail, sweep

_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_SYM: Final = struct.Struct("<IBBHQQ")
_EM_X86_64: Final = 62
_STT_FUNC, _STT_TLS = 2, 6
_CONSTRUCTORS: Final = frozenset((14, 15, 16))  # SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY

_GENERAL: Final = frozenset(
    (
        *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
        *("cs", "ds", "es", "ss", "fs", "gs"),
    )
)
_STRING: Final = frozenset(
    getattr(cs, f"X86_INS_{name}{size}")
    for name in ("MOVS", "STOS", "LODS", "SCAS", "CMPS", "INS", "OUTS")
    for size in ("BWD" if name in ("INS", "OUTS") else "BWDQ")
)
_DIRECTION: Final = frozenset((cs.X86_INS_CLD, cs.X86_INS_STD, cs.X86_INS_POPF, cs.X86_INS_POPFD, cs.X86_INS_POPFQ))
# They change vector or x87 state without naming a register.
_STATE: Final = frozenset(
    getattr(cs, f"X86_INS_{name}")
    for name in ("EMMS", "FEMMS", "LDMXCSR", "VLDMXCSR", "FXRSTOR", "FXRSTOR64", "XRSTOR", "XRSTOR64")
)
_SAVES_VECTORS: Final = "flk_with_vectors"  # what FLICKER_VECTORS jumps to
_ENTRIES: Final = ("flicker_enter", "flicker_leave", "flicker_enter_i386", "flicker_leave_i386")
_X87: Final = range(0xD8, 0xE0)  # first opcode byte (SDM vol. 2, A.5)
_PREFIXES: Final = frozenset((*b"\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0", *range(0x40, 0x50)))


@dataclass(frozen=True, slots=True)
class _Code:
    """An executable section of the object and its functions, (offset, name), ascending."""

    data: bytes
    functions: tuple[tuple[int, str], ...]

    def place(self, offset: int) -> str:
        """Such as "flicker_enter+0x1c"."""
        start, name = max((f for f in self.functions if f[0] <= offset), default=(0, ".text"))
        return f"{name}+{offset - start:#x}"


def check_object(hook: Path, data: bytes) -> None:
    """UsageError that names the first instruction of the object file ``data`` that a hook may not have.

    ``hook`` is the file that messages name: the source or the object itself.
    """
    try:
        sections = tuple(_code(data))
        kinds = {s[1] for s in _headers(data)}
        symbols = tuple(_symbols(data, _headers(data)))
    except (struct.error, LookupError, ValueError):
        raise UsageError(f"{hook}: not an object file (ET_REL) for x86-64") from None
    thread_local = [name for _, _, _, kind, name in symbols if kind == _STT_TLS]
    defined = {name for index, _, _, _, name in symbols if index}
    may_use_vectors = any(name == _SAVES_VECTORS for *_, name in symbols)
    bare = [name for name in _ENTRIES if name in defined and f"{name}_vectors" not in defined]
    if may_use_vectors and bare:
        raise UsageError(
            f"{hook}: {bare[0]} does not save vector registers (FLICKER_VECTORS), and others in the file do"
        )
    if thread_local:
        name = next(filter(None, thread_local), "a variable")
        raise UsageError(f"{hook}: {name} is thread-local, and fs is the program's")
    if kinds & _CONSTRUCTORS:
        raise UsageError(f"{hook}: constructors and destructors would not run; flicker_start does")
    for code in sections:
        insns = sweep(code.data, 0)
        for insn in insns:
            found = detail(insn)
            why = _violation(insn.data, found, may_use_vectors)
            if why:
                raise UsageError(f"{hook}: {code.place(insn.vaddr)}: {insn.data.hex()} ({found.mnemonic}) {why}")
        end = insns[-1].end if insns else 0
        if end != len(code.data):
            raise UsageError(f"{hook}: {code.place(end)}: {code.data[end : end + 15].hex()} is no known instruction")


def _violation(data: bytes, insn: InsnDetail, may_use_vectors: bool) -> str:
    """Why a hook may not have the instruction ``insn`` of bytes ``data``; "" where it may."""
    is_x87 = next(byte for byte in data if byte not in _PREFIXES) in _X87
    is_vector = is_x87 or insn.opcode_id in _STATE or not insn.regs_read | insn.regs_written <= _GENERAL
    if is_vector and not may_use_vectors:
        return "uses vector or floating-point registers, which are the program's; -mgeneral-regs-only avoids them"
    if insn.opcode_id in _STRING and not is_vector:  # movsd and cmpsd are two instructions each
        return "is a string instruction, and the direction flag is the program's"
    if insn.opcode_id in _DIRECTION:
        return "changes the direction flag, which is the program's"
    for operand in insn.operands:
        if isinstance(operand, Mem) and operand.segment == "fs":
            return "uses fs, which is the program's; -fno-stack-protector avoids it"
        if isinstance(operand, Mem) and operand.segment == "gs":
            return "uses gs, which is the runtime's"
    return ""


def require_no_relocation(hook: Path, linked: bytes, elsewhere: bytes) -> None:
    """UsageError where the runtime's bytes depend on its address: nobody relocates it when the program starts.

    ``linked`` and ``elsewhere`` are ld's output for two base addresses. Comparing them finds whatever the reason is:
    pointers in static data, a global offset table, code that is not position-independent.
    """
    segments, moved = _segments(linked), _segments(elsewhere)
    if len(segments) != len(moved):
        raise InternalError(f"{hook}: linked at another address it has {len(moved)} segments, not {len(segments)}")
    for (kind, vaddr, old), (_, _, new) in zip(segments, moved, strict=True):
        if kind == PT_LOAD and old != new:
            at = vaddr + next(i for i, (a, b) in enumerate(zip_longest(old, new)) if a != b)
            raise UsageError(
                f"{hook}: {_symbol_at(linked, at)} holds an address, which static data of a hook cannot: "
                "set pointers by code (flicker_start)"
            )


def _symbol_at(elf: bytes, vaddr: int) -> str:
    """The name of what stands at ``vaddr`` in a linked file, or the address."""
    inside = (name for _, at, size, _, name in _symbols(elf, _headers(elf)) if at <= vaddr < at + size)
    return next(inside, f"{vaddr:#x}")


# ---------------------------------------------------------------------------------------------------------------------
# ELF as compilers and linkers write it


def _headers(elf: bytes) -> list[tuple[int, ...]]:
    """The section headers, fields as in Elf64_Shdr."""
    header = _EHDR.unpack_from(elf)
    return [_SHDR.unpack_from(elf, header[6] + i * _SHDR.size) for i in range(header[12])]


def _segments(elf: bytes) -> list[tuple[int, int, bytes]]:
    """(type, vaddr, file bytes) of each segment."""
    header = _EHDR.unpack_from(elf)
    rows = [_PHDR.unpack_from(elf, header[5] + i * _PHDR.size) for i in range(header[10])]
    return [(kind, vaddr, elf[offset : offset + filesz]) for kind, _, offset, vaddr, _, filesz, _, _ in rows]


def _symbols(elf: bytes, sections: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, int, int, int, str]]:
    """(section index, value, size, STT_*, name) of each symbol."""
    for section in sections:
        if section[1] == SHT_SYMTAB:
            strings = sections[section[6]]
            names = elf[strings[4] : strings[4] + strings[5]]
            for name, info, _, index, value, size in _SYM.iter_unpack(elf[section[4] : section[4] + section[5]]):
                yield index, value, size, info & 15, names[name : names.index(b"\0", name)].decode(errors="replace")


def _code(elf: bytes) -> Iterator[_Code]:
    """The executable sections. Raises struct.error, LookupError or ValueError for what is no object file."""
    header = _EHDR.unpack_from(elf)
    if header[0][:6] != b"\x7fELF\x02\x01" or header[1] != ET_REL or header[2] != _EM_X86_64:
        raise ValueError
    sections = _headers(elf)
    functions = [(index, at, name) for index, at, _, kind, name in _symbols(elf, sections) if kind == _STT_FUNC]
    for index, (_, kind, flags, _, offset, size, *_) in enumerate(sections):
        if kind != SHT_NOBITS and flags & SHF_ALLOC and flags & SHF_EXECINSTR:
            if offset + size > len(elf):
                raise ValueError
            own = sorted((at, name) for section, at, name in functions if section == index)
            yield _Code(elf[offset : offset + size], tuple(own))
