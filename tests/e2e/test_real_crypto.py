"""OpenSSL's assembly in a static program: tables in text hold bytes that read as system calls, and are left alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.elf.read import read_image
from flicker_aot.model.code import Verdict

from ..support.artifacts import Artifacts
from ..support.need import need
from ..support.rewrite import Invocation, assert_nothing_escapes, assert_same_behaviour

SOURCE = Path(__file__).parent / "crypto" / "crypto.c"


@pytest.mark.slow
def test_keys_and_signatures_are_right(artifacts: Artifacts, tmp_path: Path) -> None:
    """Digests, ciphers, keys and secrets are the original's, signatures on P-256 and others hold; no call escapes."""
    original = tmp_path / "crypto"
    command = [str(need("gcc")), "-O1", "-static", str(SOURCE), "-o", str(original), "-lcrypto", "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True)
    code = discover(read_image(original, original.read_bytes()))
    assert len([c for c in code.candidates if c.verdict is not Verdict.SITE]) > 10  # or there is nothing to mistake
    for tool in ("none", "count"):
        how = Invocation(env={"FLICKER_AOT_OUTPUT": "/dev/null"})
        outcome = assert_same_behaviour(original, artifacts.rewritten(original, "--tool", tool), how, status=0)
        assert outcome.stdout.endswith(b"\n0 failures\n")
    assert_nothing_escapes(artifacts.rewritten(original, "--tool", "none"), Invocation())
