"""``rewrite`` of a dynamic program. In: a ``Request``, patterns of further files. Out: one file; a ``Report``.

The closure is that of a bundle (bundle/find.py). Each file of it is rewritten in memory as a client and verified; what
that comes to goes into the program as a plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..bundle.find import Member, find_members
from ..elf.read import read_image
from ..errors import FlickerError, PolicyError
from ..model.options import OnRefusal, Role
from ..model.plans import FilePlan
from ..model.tree import Kind
from ..pipeline import Request, StageListener, check_destination, plan_file, read_file, rewrite
from ..report.strict import not_strict
from ..report.values import PlanReport, Report
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
    planned = [_planned(member, request, listener) for member in members[1:]]
    reserves = not any(member.place is not None and member.place.is_libc for member in members)
    told = [f"{warning.path}: {warning.message}" for warning in warnings]
    told += [f"{report.path}: is not hooked: {report.refusal}" for _, report in planned if report.refusal]
    if request.options.strict:
        _require_strict(request.source, [report for _, report in planned])
    report = rewrite(
        replace(
            request,
            options=replace(request.options, role=Role.SINGLE),
            plans=tuple(
                replace(plan, is_aligned=plan.is_aligned and reserves) for plan, _ in planned if plan is not None
            ),
        ),
        listener,
    )
    return replace(report, warnings=(*report.warnings, *told), plans=tuple(report for _, report in planned))


def _planned(member: Member, request: Request, listener: StageListener) -> tuple[FilePlan | None, PlanReport]:
    """The plan of one file; None for one that cannot be rewritten, or whose rewriting fails: it then runs as it is."""
    path = str(member.original)
    if member.role is None:
        return None, PlanReport(path=path, refusal=member.facts.refusal or "no code for this machine")
    options = request.options
    if options.strict:  # which lists refusals itself
        options = replace(options, on_refusal=OnRefusal.TRAP, strict=False)
    listener(f"plan {member.original.name}")
    try:
        image = read_image(member.original, read_file(member.original))
        plan, file = plan_file(image, options, request.excluded, lambda stage: None)
    except FlickerError as error:
        if options.on_refusal is OnRefusal.FAIL:
            raise
        return None, PlanReport(path=path, refusal=str(error))
    return plan, PlanReport(path=path, file=file, build_id=plan.build_id.hex() or None)


def _require_strict(source: Path, reports: Sequence[PlanReport]) -> None:
    places = tuple(_not_strict(reports))
    if places:
        count = f"{len(places)} place{'s' if len(places) > 1 else ''} of what it loads"
        raise PolicyError(f"{source}: --strict: not surely hooked or understood in {count}, not written", places)


def _not_strict(reports: Sequence[PlanReport]) -> Iterator[str]:
    for report in reports:
        if report.file is None:
            yield f"{report.path}: {report.refusal}"
        else:
            yield from (f"{report.path}: {place}" for place in not_strict(report.file))
