"""Functions that never return. In: an Image and its functions. Out: whether a call to an address comes back.

Compilers let nothing sensible follow such a call: what stands there belongs to another path, and taking it for what
runs next loses the bounds of jump tables and the values of registers. Asked for only where something was lost, as each
question decodes a callee.
"""

from __future__ import annotations

from typing import Final

from ..model.code import Flow, Insn
from ..model.image import Image
from .flow import descend
from .functions import Functions
from .insns import falls_through

_MAX_BYTES: Final = 2048  # exit, abort, assertion failures are small
_MAX_DEPTH: Final = 6


class Returns:
    """``never(vaddr)`` is True only where every path from ``vaddr`` is known, and none returns. Answers are kept."""

    def __init__(self, image: Image, functions: Functions) -> None:
        self._image, self._functions = image, functions
        self._known: dict[int, bool] = {}
        self._asked: list[int] = []

    def never(self, vaddr: int) -> bool:
        """Whether a call to ``vaddr`` never comes back."""
        if vaddr in self._asked or len(self._asked) >= _MAX_DEPTH:
            return False  # not kept: by another way there may be another answer
        if vaddr not in self._known:
            self._asked.append(vaddr)
            self._known[vaddr] = self._look(vaddr)
            self._asked.pop()
        return self._known[vaddr]

    def _look(self, vaddr: int) -> bool:
        function = self._functions.at(vaddr)
        if function is None:
            return False
        is_known = function.source != "gap"
        end = min(function.end, vaddr + _MAX_BYTES)
        decoded = descend(self._image, vaddr, end, [vaddr], is_known, self.never, into_calls=False)
        return decoded.complete and not any(self._leaves(insn, decoded.insns) for insn in decoded.insns.values())

    def _leaves(self, insn: Insn, insns: dict[int, Insn]) -> bool:
        """Whether control may leave the function by ``insn`` and come back to its caller."""
        if insn.flow is Flow.RETURN:
            return True
        if insn.flow in (Flow.JUMP, Flow.BRANCH) and insn.target not in insns:
            return insn.target is None or not self.never(insn.target)
        if not falls_through(insn) or insn.end in insns:
            return False
        # Compilers end a function with a call that does not come back.
        return insn.flow is not Flow.CALL or insn.target is None or not self.never(insn.target)
