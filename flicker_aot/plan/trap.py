"""The tactic that always fits: ud2 in place of the two bytes of the site. In: a site. Out: its patch.

Costs about 2.5 us a call, and needs SIGILL deliverable and room for a signal frame; so it comes last.
"""

from __future__ import annotations

from ..model.code import Site
from ..model.plan import Patch, SoundnessClass, Tactic


def trap_patch(site: Site, reason: str) -> Patch:
    """The patch of a site with no window; ``reason`` is why there is none."""
    return Patch(
        site=site,
        tactic=Tactic.TRAP,
        soundness=SoundnessClass.TRAP,
        start=site.vaddr,
        end=site.end,
        before=(),
        after=(),
        fills=(),
        retargets=(),
        reason=reason,
    )


def kept_patch(site: Site, reason: str) -> Patch:
    """No patch: the site stays."""
    return Patch(
        site=site,
        tactic=Tactic.KEEP,
        soundness=SoundnessClass.NONE,
        start=site.vaddr,
        end=site.end,
        before=(),
        after=(),
        fills=(),
        retargets=(),
        reason=reason,
    )
