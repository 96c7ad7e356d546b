"""``rewrite`` of a dynamic program. In: a ``Request``, patterns of further files. Out: one file; a ``Report``.

The closure is that of a bundle (bundle/find.py). Each file of it is rewritten in memory as a client and verified; what
that comes to goes into the program as a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..bundle.find import Member, find_members
from ..elf.read import read_image
from ..errors import FlickerError, PolicyError
from ..model.options import OnRefusal, Options, Role
from ..model.plans import FilePlan
from ..model.tree import Kind
from ..pipeline import Request, StageListener, check_destination, plan_file, read_file, rewrite
from ..report.strict import not_strict
from ..report.values import Report
from ..tree.classify import classify


def is_dynamic_program(path: Path) -> bool:
    """Whether ``rewrite_single`` is what makes a hooked copy of ``path``; False for what cannot be read."""
    try:
        return classify(path).kind is Kind.PROGRAM
    except (OSError, FlickerError):
        return False


def rewrite_single(request: Request, includes: Sequence[str], listener: StageListener) -> Report:
    """Writes ``request.destination``, or raises a FlickerError and leaves everything as it was."""
    check_destination(request)
    members, warnings = find_members(request.source, includes, follows=False)
    plans: list[FilePlan] = []
    told = [str(warning.message) for warning in warnings]
    refused: list[str] = []
    for member in members[1:]:
        if member.role is None:
            refused.append(f"{member.original}: {member.facts.refusal}")
            continue
        listener(f"plan {member.original.name}")
        plan, places = _planned(member, request.options, listener)
        plans.append(plan)
        refused += places
    if request.options.strict and refused:
        raise PolicyError(
            f"{request.source}: --strict: not surely hooked or understood in {len(refused)} places of "
            "the files that it loads, not written",
            tuple(refused),
        )
    options = replace(request.options, role=Role.SINGLE)
    report = rewrite(replace(request, options=options, plans=tuple(plans)), listener)
    return replace(report, warnings=(*report.warnings, *told))


def _planned(member: Member, options: Options, listener: StageListener) -> tuple[FilePlan, list[str]]:
    image = read_image(member.original, read_file(member.original))
    if options.strict:
        options = replace(options, on_refusal=OnRefusal.TRAP, strict=False)
        plan, file = plan_file(image, options, listener)
        return plan, [f"{member.original}: {place}" for place in not_strict(file)]
    plan, _ = plan_file(image, options, listener)
    return plan, []
