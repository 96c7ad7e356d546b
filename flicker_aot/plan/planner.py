"""The order in which tactics are tried. In: ``Image``, ``Code``, ``Options``. Out: a ``Plan``."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

from ..errors import InternalError, PolicyError
from ..model.code import Code, Site
from ..model.image import ET_EXEC, Image
from ..model.options import OnRefusal, Options, Role
from ..model.plan import Patch, Plan, SoundnessClass, Tactic
from ..x86.encode import JMP_REL32_SIZE
from .claims import Claim, Claims
from .debug_state import debug_state
from .displace import ground_at
from .keep import reason_to_keep
from .loader_opens import loader_opens
from .neighbour import neighbour_eviction
from .retarget import with_retargets
from .short_jump import hole_bytes, holes, short_jump
from .soundness import why_not_closed
from .successor import successor_eviction
from .trap import kept_patch, trap_patch
from .ways import Ways
from .window import BEST, best_window, boundaries, quick_window, sides_of

_LISTED_SITES: Final = 10
_MAX_START: Final = 4 + 15  # bytes that a jump at the entry point displaces at most: its last one on a long instruction


def make_plan(image: Image, code: Code, options: Options) -> Plan:
    """A patch for every site of ``code``, in address order; windows never overlap each other or another site.

    PolicyError where ``options.on_refusal`` is FAIL and a site has no window.
    """
    claims = _initial_claims(image, code)
    if options.role is Role.INTERPRETER:
        claims.add(Claim(image.entry, image.entry + _MAX_START, None, "the start of the runtime"))
    told = None
    if options.role is Role.INTERPRETER and options.bundle is not None:
        told = debug_state(image, claims, closed=options.strict)
    if told is not None:
        claims.add(Claim(told, told + JMP_REL32_SIZE, None, "the jump for debuggers"))
    opens = loader_opens(image, claims) if options.bundle is not None and options.bundle.is_libc else ()
    for call in opens:
        claims.add(Claim(call.vaddr, call.end, None, "an open of the loader"))
    fixed = image.type == ET_EXEC
    patches: dict[int, Patch] = {}
    hard: list[Site] = []
    for site in code.sites:
        patch = _quick(site, image, claims, options, fixed)
        if patch is None:
            hard.append(site)
        else:
            patches[site.vaddr] = patch
    ways = Ways(image)
    ways.look(vaddr for site in hard for vaddr in boundaries(site))
    rest: list[Site] = []
    for site in hard:
        ground = ground_at(image, site.vaddr, site.end, fixed=fixed)
        choice = best_window(site, sides_of(site, ground, claims), ways) if ground is not None else ""
        if isinstance(choice, str) or choice.cost.rank not in BEST:
            rest.append(site)
        else:
            patches[site.vaddr] = _claimed(choice.patch, claims)
    ways.look(vaddr for site in rest for hole in holes(site, code.padding) for vaddr in hole_bytes(hole))
    for site in rest:
        patches[site.vaddr] = _claimed(_climb(site, image, code, claims, options, fixed, ways), claims)
    ordered = [patches[site.vaddr] for site in code.sites]
    if options.on_refusal is OnRefusal.FAIL:
        _fail_on_traps(image, ordered)
    plan = Plan(patches=with_retargets(ordered, image, claims), debug_state=told, loader_opens=opens)
    _check(code, plan)
    return plan


def _quick(site: Site, image: Image, claims: Claims, options: Options, fixed: bool) -> Patch | None:
    """The patch of a site that is kept or has an agnostic window right before it."""
    keep = reason_to_keep(site, options)
    if keep is not None:
        return kept_patch(site, keep)
    ground = ground_at(image, site.vaddr, site.end, fixed=fixed)
    patch = quick_window(site, ground, claims) if ground is not None else None
    return None if patch is None else _claimed(patch, claims)


def _climb(site: Site, image: Image, code: Code, claims: Claims, options: Options, fixed: bool, ways: Ways) -> Patch:
    """The first rung of the ladder that is agnostic or closed; else the first that is right; else the trap."""
    ground = ground_at(image, site.vaddr, site.end, fixed=fixed)
    if ground is None:
        return _refused(site, "the site has no file bytes in an executable segment", options)
    fallback: Patch | None = None
    declined: list[str] = []
    choice = best_window(site, sides_of(site, ground, claims), ways)
    if isinstance(choice, str):
        declined.append(choice)
    elif choice.cost.rank in BEST:
        return choice.patch
    else:
        fallback = choice.patch
        declined.append(choice.patch.reason)
    rungs: tuple[tuple[str, Callable[[], Patch | str]], ...] = (
        ("short jump", lambda: short_jump(site, code.padding, claims, ways)),
        ("successor eviction", lambda: successor_eviction(site, ground, claims, ways)),
        ("neighbour eviction", lambda: neighbour_eviction(site, ground, claims, ways)),
    )
    for name, rung in rungs:
        found = rung()
        if isinstance(found, str):
            declined.append(f"{name}: {found}")
        elif found.soundness is SoundnessClass.CFG:
            fallback = fallback or found
            declined.append(f"{name}: {why_not_closed(found)}")
        else:
            return replace(found, reason="; ".join(declined))
    if fallback is None:
        return _refused(site, "; ".join(declined), options)
    return replace(fallback, reason="; ".join(declined))


def _refused(site: Site, reason: str, options: Options) -> Patch:
    return (kept_patch if options.on_refusal is OnRefusal.KEEP else trap_patch)(site, reason)


def _claimed(patch: Patch, claims: Claims) -> Patch:
    """``patch``, whose bytes nobody else can have any more."""
    if patch.tactic not in (Tactic.TRAP, Tactic.KEEP):
        for start, end in patch.owned:
            claims.add(Claim(start, end, patch.site.vaddr, "another patch"))
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
    owned = sorted((*run, p.site.vaddr) for p in plan.patches if p.tactic is not Tactic.KEEP for run in p.owned)
    for (_, end, first), (start, _, second) in pairwise(owned):
        if start < end:
            raise InternalError(f"{second:#x}: its patch at {start:#x} overlaps that of {first:#x} up to {end:#x}")
