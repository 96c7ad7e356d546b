"""Mirror of runtime_stub/abi.h. In: values. Out: the bytes of its structures.

tests/unit/test_abi.py compares the two.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import ClassVar, Final

ABI_VERSION: Final = 5
CONFIG_MAGIC: Final = 0x3166636B63696C66

F_TRAPS: Final = 1
F_FILLS: Final = 2
F_VDSO_KEEP: Final = 4
F_VDSO_HIDE: Final = 8
F_VSYSCALL: Final = 32768
F_CLIENT: Final = 16
F_INTERP: Final = 32
F_OWN_GS: Final = 64
F_PROGRAM: Final = 256
F_FOLLOW: Final = 512
F_LIBC: Final = 1024
F_SINGLE: Final = 2048
F_GUARD_ON: Final = 4096
F_GUARD_OFF: Final = 8192
F_KEPT: Final = 16384
F_NO_FSGSBASE: Final = 128  # only tests set it, in a finished file

F_LOADERS_OPEN: Final = 0x40000000  # among the flags of an open
SLOTS_SIZE: Final = 16  # struct flk_slots
OWN_GS_BYTES: Final = 80  # of memory behind the runtime's bss, for each trampoline and OWN_GS_EXTRA more
OWN_GS_EXTRA: Final = 8


@dataclass(frozen=True, slots=True)
class FlkTemplate:
    """struct flk_template: byte offsets from T."""

    FORMAT: ClassVar[struct.Struct] = struct.Struct("<16B")
    load: int
    push: int
    call: int
    ret: int
    pop: int
    sys: int
    after: int
    vload: int
    vpush: int
    vcall: int
    vret: int
    apop: int
    lea: int
    lea_end: int
    has_leave: int
    reserved: int = 0

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkConfig:
    """struct flk_config without its template."""

    FORMAT: ClassVar[struct.Struct] = struct.Struct("<QIIQQQQQQQQQQQQQQQIIIIII")
    magic: int = CONFIG_MAGIC
    abi_version: int = ABI_VERSION
    flags: int
    self_vaddr: int
    image_vaddr: int
    entry_vaddr: int
    tramp_vaddr: int
    tramp_size: int
    sites_vaddr: int
    insns_vaddr: int
    traps_vaddr: int
    slots_vaddr: int
    exe_vaddr: int
    phdrs_vaddr: int
    interp_vaddr: int
    bss_vaddr: int
    bss_end: int
    plans_vaddr: int
    site_count: int
    insn_count: int
    trap_count: int
    exe_size: int
    depth: int
    interp_size: int

    def pack(self, template: FlkTemplate) -> bytes:
        return self.FORMAT.pack(*astuple(self)) + template.pack()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkSite:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<IIIHH")
    tramp: int
    site: int
    insn_first: int
    insn_count: int
    entry: int

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkInsn:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<Hh")
    tramp_delta: int
    orig_delta: int

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkTrap:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<II")
    addr: int
    target: int

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


CONFIG_SIZE: Final = FlkConfig.FORMAT.size + FlkTemplate.FORMAT.size
