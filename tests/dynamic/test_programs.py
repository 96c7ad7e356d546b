"""The test programs of tests/e2e linked dynamically, with ld.so as host and libc and program as clients.

What is held for static programs holds here from ld.so's first instruction on: behaviour, places of calls, counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from ..support import oracle
from ..support.build import Program, all_programs
from ..support.execute import run
from ..support.prefix import Prefix, make_prefixes
from ..support.rewrite import counted_calls, differences

# proc_setup asks what only a static program's auxv holds; three sites of abi_shapes are unknown, as tests/e2e says;
# sig_step expects libc's code in its own text; what is written in assembly has no libc.
STATIC_ONLY = frozenset(("proc_setup", "abi_shapes", "sig_step"))
CASES = [p for p in all_programs() if p.source.suffix != ".S" and p.name not in STATIC_ONLY]
# Each rewritten library has two segments more to be mapped.
LOADING = frozenset(("mmap", "mprotect", "pread64"))


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
    # A program that prints its own path prints that of its folder.
    told = replace(expected, stdout=expected.stdout.replace(bytes(native.folder), bytes(hooked.folder)))
    assert run([rewritten], env=env, timeout_seconds=limit) == told
    counted = counted_calls(report) if report.exists() else Counter()  # killed: no line
    traced = oracle.trace([rewritten, *program.traced], env=env, timeout_seconds=limit)
    assert not hooked.escapes(traced)
    if program.counts == "none" or expected.status < 0:
        return
    leave_out = LOADING | frozenset(() if program.counts == "exact" else program.counts.split())
    wanted = oracle.trace([original], env=env, timeout_seconds=limit).calls(original)
    assert not differences(counted, wanted, leave_out)
