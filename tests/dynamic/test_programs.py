"""The test programs of tests/e2e linked dynamically, with ld.so as host and libc and program as clients.

What is held for static programs holds here from ld.so's first instruction on: behaviour, places of calls, counts.
"""

from __future__ import annotations

import pytest

from ..support import oracle
from ..support.build import Program, all_programs
from ..support.execute import run
from ..support.prefix import Prefix, make_prefixes
from ..support.rewrite import counted_calls, differences

# Not: what is about link modes or files of static programs only, and what has no libc.
CASES = [p for p in all_programs() if p.source.suffix != ".S"]


@pytest.fixture(scope="module")
def prefixes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prefix, Prefix]:
    """Native and hooked, with the tool `count`."""
    return make_prefixes(tmp_path_factory.mktemp("prefix"), "count")


@pytest.mark.parametrize("program", CASES, ids=lambda p: p.name)
def test_dynamic_program(prefixes: tuple[Prefix, Prefix], program: Program) -> None:
    """Same output and status; no call from outside a trampoline; the counts are the oracle's of the original."""
    native, hooked = prefixes
    original, rewritten = native.build(program), hooked.build(program)
    report = hooked.folder / f"{program.name}.json"
    limit = program.timeout_seconds
    env = {"FLICKER_AOT_OUTPUT": str(report)}
    expected = run([original], env=env, timeout_seconds=limit)
    assert expected.status == program.status, f"{original} itself fails: {expected}"
    assert run([rewritten], env=env, timeout_seconds=limit) == expected
    counted = counted_calls(report)
    traced = oracle.trace([rewritten], env=env, timeout_seconds=limit)
    assert not hooked.escapes(traced)
    if program.counts == "none":
        return
    leave_out = frozenset(() if program.counts == "exact" else program.counts.split())
    wanted = oracle.trace([original], env=env, timeout_seconds=limit).calls(original)
    assert not differences(counted, wanted, leave_out)
