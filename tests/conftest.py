"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator

import lief  # noqa: F401  # the verifier's process, forked by each rewriting, has it then: 0.3 s
import pytest

from .support.artifacts import Artifacts
from .support.build import Program


def _cases(session: pytest.Session) -> list[tuple[Program, str]]:
    """The (program, link mode) pairs that the collected tests are parametrized with, in the order of the tests."""
    cases: dict[tuple[str, str], tuple[Program, str]] = {}
    for item in session.items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        program, mode = parameters.get("program"), parameters.get("mode")
        if isinstance(program, Program) and isinstance(mode, str):
            cases[program.name, mode] = (program, mode)
    return list(cases.values())


@pytest.fixture(scope="session")
def artifacts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Artifacts]:
    """Built and rewritten executables of this session."""
    shared = Artifacts(tmp_path_factory.mktemp("artifacts"))
    shared.prefetch(_cases(request.session), [("--tool", "none"), ("--tool", "count")])
    yield shared
    shared.close()
