"""Whether the plans in a single file are those of the machine's files. In: the note. Out: findings and warnings.

``verify`` proves a plan's shape alone; here it is made again, by a rewriting that is itself verified, where the
file that it is for is still at its path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..elf.read import read_image
from ..errors import FlickerError
from ..model.options import Asked, OnRefusal, Options
from ..pipeline import StageListener, plan_digest, plan_file, read_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """``findings``: what is wrong, a line each. ``warnings``: files that are gone, or others now."""

    findings: tuple[str, ...]
    warnings: tuple[str, ...]


def check_plans(note: Mapping[str, Any], listener: StageListener) -> Checked:
    """``note``: of a file that was found to be good by itself."""
    findings: list[str] = []
    warnings: list[str] = []
    try:
        asked = _asked(note["asked"])
    except (TypeError, ValueError) as error:
        return Checked(findings=(f"the note does not say what its plans were made with: {error}",), warnings=())
    for path, file_sha256, _, sha256 in note["plans"]:
        try:
            data = read_file(Path(path))
        except FlickerError:
            warnings.append(f"{path}: is not there any more: of its plan only the shape was checked")
            continue
        if hashlib.sha256(data).hexdigest() != file_sha256:
            warnings.append(f"{path}: is another file now, which runs unhooked: of its plan only the shape was checked")
            continue
        listener(f"plan {Path(path).name}")
        options = Options(only=asked.only, on_refusal=asked.on_refusal)
        plan, _ = plan_file(read_image(Path(path), data), options, asked.excluded, lambda stage: None)
        if plan_digest(plan) != sha256:
            findings.append(f"the plan for {path} is not the one that is made of it")
    return Checked(findings=tuple(findings), warnings=tuple(warnings))


def _asked(value: Any) -> Asked:
    only, excluded, on_refusal = value
    return Asked(
        only=None if only is None else frozenset(only),
        excluded=None if excluded is None else frozenset(excluded),
        on_refusal=OnRefusal(on_refusal),
    )
