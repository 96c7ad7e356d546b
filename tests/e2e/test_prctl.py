"""docs/prctl.md where a machine without the feature cannot tell: what the runtime answers does not reach the kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..support import oracle
from ..support.rewrite import rewrite

SOURCE = Path(__file__).parent / "prctl" / "enable.c"


def test_no_shadow_stack_is_enabled(tmp_path: Path) -> None:
    """ARCH_SHSTK_ENABLE is answered as by a kernel without user shadow stacks; asking for their state is not."""
    original = tmp_path / "enable"
    subprocess.run(["gcc", "-O2", "-static", "-o", original, SOURCE], check=True)
    natively, rewritten = oracle.trace([original]), oracle.trace([rewrite(original, tmp_path / "out")])
    assert rewritten.outcome == natively.outcome
    assert rewritten.outcome.stdout.startswith(b"-1\n")
    own = "fsgsbase" not in Path("/proc/cpuinfo").read_text().split()  # then the runtime sets its gs by ARCH_SET_GS
    assert rewritten.calls()["arch_prctl"] == natively.calls()["arch_prctl"] - 1 + own
