"""The class of a patch that hides something. In: the patch, what leads where. Out: the patch with its class."""

from __future__ import annotations

from dataclasses import replace

from ..model.plan import Patch, SoundnessClass
from .ways import Ways


def classified(patch: Patch, ways: Ways) -> Patch:
    """``patch`` with its ``ways`` and class: agnostic if nothing is hidden, closed if nothing leads to what is."""
    found = tuple(way for vaddr in patch.hidden for way in ways.into(vaddr))
    hides = SoundnessClass.CFG if found else SoundnessClass.CLOSED
    return replace(patch, ways=found, soundness=hides if patch.hidden else SoundnessClass.AGNOSTIC)


def why_not_closed(patch: Patch) -> str:
    """The first way to what ``patch``, which is CFG-dependent, hides."""
    way = patch.ways[0]
    more = f", and {len(patch.ways) - 1} more ways" if len(patch.ways) > 1 else ""
    return f"{way.kind.value} at {way.place:#x} may lead to {way.target:#x}{more}"
