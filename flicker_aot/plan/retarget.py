"""Direct branches from elsewhere into windows. In: the windows. Out: the branches whose displacement shall change.

Only rel32 forms can reach a trampoline; rel8 ones stay and lead to the window's jump or fill. Branches that are
displaced themselves need nothing here: layout aims their copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..model.code import Flow
from ..model.image import Image
from ..model.plan import FillKind, Patch, Retarget, Tactic
from ..x86.decode import detail
from .claims import Claims

_NOBODY = -1


def with_retargets(patches: Sequence[Patch], image: Image, claims: Claims) -> tuple[Patch, ...]:
    """The same patches, each with the branches that lead to one of its trapping fills.

    A fill that jumps leads to the copy at the cost of one jump, and needs no second edit in the file.
    """
    return tuple(replace(p, retargets=_retargets(p, image, claims)) if _has_traps(p) else p for p in patches)


def _has_traps(patch: Patch) -> bool:
    return patch.tactic is Tactic.WINDOW and any(f.kind is not FillKind.JUMP32 for f in patch.fills)


def _retargets(patch: Patch, image: Image, claims: Claims) -> tuple[Retarget, ...]:
    traps = {f.vaddr for f in patch.fills if f.kind is not FillKind.JUMP32}
    found = []
    for branch in sorted(set(patch.site.branches)):
        if branch.target not in traps or branch.flow not in (Flow.JUMP, Flow.BRANCH, Flow.CALL):
            continue
        field = detail(branch).branch
        if field is None or field.size != 4 or claims.holder(branch.vaddr, branch.end, _NOBODY) is not None:
            continue
        # The branch must stand in the file as it was decoded: its bytes are about to be edited there.
        if image.read(branch.vaddr, branch.size) != branch.data:
            continue
        found.append(Retarget(branch=branch, target=branch.target))
    return tuple(found)
