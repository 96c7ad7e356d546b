"""Whether every way within a function is known, though the length of a table is not. In: a decoded function. Out: bool.

A switch over all values of an enumeration compares nothing: clang, rustc and zig leave out the default, and the jump
table has no bound. Its entries are read on into whatever stands behind, so more places are followed than the jump
leads to: enough to know every way that leads somewhere, if it is certain which table the jump goes through, and if no
entry of it can lie behind the first that leads out of the function. Nothing else may rest on this: that an instruction
is reached by such a jump proves no code, nor that a start is hidden from all jumps.
"""

from __future__ import annotations

from ..model.code import Flow
from ..model.image import Image
from .flow import Decoded
from .tables import Budget, TableFinder


def is_covered(image: Image, decoded: Decoded) -> bool:
    """Whether each jump of ``decoded`` leads out of it or to where the walk has been."""
    if decoded.complete:
        return True
    tables = {table.jump: table for table in decoded.tables}
    if decoded.bad or any(i.flow is not Flow.INDIRECT_JUMP or i.vaddr not in tables for i in decoded.unresolved):
        return False
    # Anew with all that was found: a path that came in by a guess may lead to a jump, too, with another table.
    code = decoded.start, decoded.end
    finder = TableFinder(image, decoded.insns, code, decoded.roots, decoded.tables, {}, Budget())
    finder.learn((i for i in decoded.insns.values() if i.target is not None), decoded.last_calls)
    return all(finder.holds_all(decoded.insns[table.jump], table) for table in decoded.tables)
