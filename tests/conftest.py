"""Fixtures of all tests."""

from __future__ import annotations

import pytest

from .support.artifacts import Artifacts


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """Built and rewritten executables of this session."""
    return Artifacts(tmp_path_factory.mktemp("artifacts"))
