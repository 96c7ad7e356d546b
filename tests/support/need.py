"""Programs that a test needs: on CI a missing one is a failure, elsewhere a skip that names it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def need(*names: str) -> Path:
    """The path of the first of ``names`` that there is: a command name, or an absolute path."""
    for name in names:
        found = shutil.which(name)
        if found:
            return Path(found)
    reason = f"needs {' or '.join(names)} (tools/apt-packages.sh install)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
