"""The last rung before the trap: other instructions near the site make room.
In: a site. Out: its patch, or why there is none."""

from __future__ import annotations

from ..model.code import Site
from ..model.plan import Patch, Tactic
from .claims import Claims
from .displace import Ground
from .evict import evict, runs_of
from .ways import Ways


def neighbour_eviction(site: Site, ground: Ground, claims: Claims, ways: Ways) -> Patch | str:
    """The patch that evicts instructions in straight line before the site, or behind its first successor."""
    return evict(site, Tactic.NEIGHBOUR, (*runs_of(site.before), *runs_of(site.after[1:])), ground, claims, ways)
