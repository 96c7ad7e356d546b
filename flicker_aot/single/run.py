"""``rewrite`` of a dynamic program. In: a ``Request``, patterns of further files. Out: one file; a ``Report``.

The closure is that of a bundle (bundle/find.py). Each file of it is rewritten in memory as a client and verified; what
that comes to goes into the program as a plan.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..bundle.find import Member, find_members
from ..elf.read import read_image
from ..errors import FlickerError, InternalError, PolicyError
from ..model.options import OnRefusal, Options, Role
from ..model.plans import FilePlan
from ..model.tree import Kind
from ..pipeline import Request, StageListener, check_destination, load_stages, plan_file, read_file, rewrite
from ..report.strict import not_strict
from ..report.values import PlanReport, Report
from ..tree.classify import classify
from ..tree.pool import beside, default_jobs


def is_dynamic_program(path: Path) -> bool:
    """Whether ``rewrite_single`` is what makes a hooked copy of ``path``; False for what cannot be read."""
    try:
        return classify(Path(os.path.realpath(path))).kind is Kind.PROGRAM
    except (OSError, FlickerError):
        return False


def rewrite_single(request: Request, includes: Sequence[str], listener: StageListener) -> Report:
    """Writes ``request.destination``, or raises a FlickerError and leaves everything as it was."""
    check_destination(request)
    members, warnings = find_members(request.source, includes, follows=False)
    reserves = not any(member.place is not None and member.place.is_libc for member in members)
    load_stages()  # for the processes as well
    tasks = [_Task(member=member, options=request.options, excluded=request.excluded) for member in members[1:]]
    # They take as long as the program does, and are not needed before that is laid out.
    with beside(tasks, _planned, _crashed, jobs=max(1, default_jobs() - 1)) as planned:

        def plans() -> tuple[FilePlan, ...]:
            listener(f"plan {len(tasks)} files")
            results = planned()
            for result in results:
                if isinstance(result, FlickerError):
                    raise result
            if request.options.strict:
                _require_strict(request.source, _reports(results))
            found = (result[0] for result in results if not isinstance(result, FlickerError))
            return tuple(replace(plan, is_aligned=plan.is_aligned and reserves) for plan in found if plan is not None)

        options = replace(request.options, role=Role.SINGLE)
        report = rewrite(replace(request, options=options, plans=plans), listener)
        reports = _reports(planned())
    told = [f"{warning.path}: {warning.message}" for warning in warnings]
    told += [f"{report.path}: is not hooked: {report.refusal}" for report in reports if report.refusal]
    return replace(report, warnings=(*report.warnings, *told), plans=tuple(reports))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One file to be planned."""

    member: Member
    options: Options
    excluded: frozenset[int] | None

    @property
    def cost_bytes(self) -> int:
        try:
            return self.member.original.stat().st_size
        except OSError:
            return 0  # it has vanished: said when it is to be read


_Result = tuple[FilePlan | None, PlanReport] | FlickerError


def _planned(task: _Task) -> _Result:
    """The plan of one file; None for one that cannot be rewritten, or whose rewriting fails: it then runs as it is.

    An error where that is not wanted (--on-refusal fail).
    """
    member, options = task.member, task.options
    path = str(member.original)
    if member.role is None:
        return None, PlanReport(path=path, refusal=member.facts.refusal or "no code for this machine")
    if options.strict:  # which lists refusals itself
        options = replace(options, on_refusal=OnRefusal.TRAP, strict=False)
    try:
        image = read_image(member.original, read_file(member.original))
        plan, file = plan_file(image, options, task.excluded, lambda stage: None)
    except FlickerError as error:
        return error if options.on_refusal is OnRefusal.FAIL else (None, PlanReport(path=path, refusal=str(error)))
    return plan, PlanReport(path=path, file=file, build_id=plan.build_id.hex() or None)


def _crashed(task: _Task, how: str) -> _Result:
    return InternalError(f"{task.member.original}: the process that planned it ended: {how}")


def _reports(results: Sequence[_Result]) -> list[PlanReport]:
    return [result[1] for result in results if not isinstance(result, FlickerError)]


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
