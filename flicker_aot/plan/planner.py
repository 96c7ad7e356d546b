"""The order in which tactics are tried. In: ``Image``, ``Code``, ``Options``. Out: a ``Plan``."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from ..errors import InternalError, PolicyError
from ..model.code import Code, Site
from ..model.image import ET_EXEC, Image
from ..model.options import OnRefusal, Options
from ..model.plan import Patch, Plan, Tactic
from .claims import Claim, Claims
from .keep import reason_to_keep
from .retarget import with_retargets
from .trap import kept_patch, trap_patch
from .window import window_patch

_LISTED_SITES: Final = 10


def make_plan(image: Image, code: Code, options: Options) -> Plan:
    """A patch for every site of ``code``, in address order; windows never overlap each other or another site.

    PolicyError where ``options.on_refusal`` is FAIL and a site has no window.
    """
    claims = _initial_claims(image, code)
    fixed = image.type == ET_EXEC
    patches = [_patch(site, image, claims, options, fixed) for site in code.sites]
    if options.on_refusal is OnRefusal.FAIL:
        _fail_on_traps(image, patches)
    plan = Plan(patches=with_retargets(patches, image, claims))
    _check(code, plan)
    return plan


def _patch(site: Site, image: Image, claims: Claims, options: Options, fixed: bool) -> Patch:
    keep = reason_to_keep(site, options)
    if keep is not None:
        return kept_patch(site, keep)
    patch = window_patch(site, image, claims, fixed=fixed)
    if isinstance(patch, str):
        if options.on_refusal is OnRefusal.KEEP:
            return kept_patch(site, patch)
        return trap_patch(site, patch)
    claims.add(Claim(patch.start, patch.end, site.vaddr, "another window"))
    return patch


def _initial_claims(image: Image, code: Code) -> Claims:
    """Bytes that no window may take: every site's own two (but for its own window), and restartable sequences."""
    claims = Claims()
    for site in code.sites:
        claims.add(Claim(site.vaddr, site.end, site.vaddr, "another site"))
    for start, end in _restartable_sequences(image):
        claims.add(Claim(start, end, None, "a restartable sequence"))
    return claims


def _restartable_sequences(image: Image) -> Iterator[tuple[int, int]]:
    """[start, end) of each rseq critical section and abort handler that __rseq_cs describes (uapi/linux/rseq.h).

    The kernel compares the interrupted address with them, so nothing in there may run elsewhere.
    """
    section = image.section("__rseq_cs")
    if section is None:
        return
    table = image.read(section.vaddr, section.size)
    for _version, _flags, start, length, abort in struct.iter_unpack("<IIQQQ", table[: len(table) // 32 * 32]):
        if start:
            yield start, start + length
            yield abort - 4, abort + 1  # the signature stands before the handler


def _fail_on_traps(image: Image, patches: list[Patch]) -> None:
    refused = [p for p in patches if p.tactic is Tactic.TRAP]
    if refused:
        listed = "; ".join(f"{p.site.vaddr:#x}: {p.reason}" for p in refused[:_LISTED_SITES])
        more = f"; and {len(refused) - _LISTED_SITES} more" if len(refused) > _LISTED_SITES else ""
        raise PolicyError(f"{image.path}: {len(refused)} of {len(patches)} sites have no window: {listed}{more}")


def _check(code: Code, plan: Plan) -> None:
    """Every site has one patch, and no byte two owners."""
    if [p.site.vaddr for p in plan.patches] != [s.vaddr for s in code.sites]:
        raise InternalError("the plan does not have one patch for each site")
    end = 0
    for patch in plan.patches:
        if patch.tactic is Tactic.KEEP:
            continue
        if patch.start < end:
            raise InternalError(
                f"{patch.site.vaddr:#x}: its patch at {patch.start:#x} overlaps one that ends at {end:#x}"
            )
        end = patch.end
