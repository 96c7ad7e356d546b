"""Call frame rules (DWARF 4, 6.4.1). In: nothing. Out: values made by ``elf.call_frames`` and used by layout."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


class RuleKind(IntEnum):
    """How a register of the caller is found, or (the first, EXPRESSION) the CFA itself."""

    REGISTER_OFFSET = 0  # CFA only: value of ``register`` + ``offset``
    UNDEFINED = 1
    SAME = 2
    OFFSET = 3  # saved at CFA + offset
    VALUE_OFFSET = 4  # is CFA + offset
    REGISTER = 5  # is in ``register``
    EXPRESSION = 6  # saved where the DWARF expression says; as the CFA: is what the expression says
    VALUE_EXPRESSION = 7


CFA_REGISTER: Final = RuleKind.REGISTER_OFFSET
CFA_EXPRESSION: Final = RuleKind.EXPRESSION


class Rule(NamedTuple):
    kind: RuleKind
    offset: int = 0  # bytes
    register: int = 0  # DWARF number
    expression: bytes = b""


class Row(NamedTuple):
    """``registers``: (DWARF number, rule), ascending; 16 is the return address. ``signal``: of a signal frame, whose
    pc is not behind a call."""

    cfa: Rule
    registers: tuple[tuple[int, Rule], ...]
    signal: bool
