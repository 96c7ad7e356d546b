"""The rung after the short jump: what follows the site makes room, though something known leads to it.
In: a site. Out: its patch, or why there is none."""

from __future__ import annotations

from ..model.code import Site
from ..model.plan import Patch, Tactic
from .claims import Claims
from .displace import Ground
from .evict import evict, runs_of
from .ways import Ways


def successor_eviction(site: Site, ground: Ground, claims: Claims, ways: Ways) -> Patch | str:
    """The patch that evicts the instructions right after the site."""
    runs = (run for run in runs_of(site.after) if run[0].vaddr == site.end)
    return evict(site, Tactic.SUCCESSOR, runs, ground, claims, ways)
