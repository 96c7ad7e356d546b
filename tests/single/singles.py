"""Single files made through the command line, and what the ptrace oracle sees of a run.

In: dynamic programs. Out: one file each; escapes: calls of its processes that nothing made which was appended to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..support import oracle
from ..support.execute import run
from ..support.note import read_note
from ..support.rewrite import counted_calls, differences, rewrite

# The block of a library is no part of it, and its place is made ahead.
LOADING = frozenset(("mmap", "munmap"))
# A thread that has ended before it is waited for is not waited for.
TIMING = frozenset(("futex",))


@dataclass(frozen=True, slots=True)
class Single:
    original: Path
    program: Path

    def trace(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> oracle.OracleResult:
        return oracle.trace([self.program, *arguments], env=env, timeout_seconds=300)

    def escapes(self, traced: oracle.OracleResult) -> list[oracle.Record]:
        """What stands behind the input's bytes is ours: trampolines, runtime, blocks of plans; and the blocks that a
        process makes for sites that it patches by itself."""
        own, input_size = str(self.program.resolve()), read_note(self.program)["input_size"]
        inside = [r for r in traced.records if r.exe == own and r.arch == 64]
        assert inside, "the oracle saw no call at all"
        return [r for r in inside if r.mapping != "[block]" and (r.mapping != own or r.offset < input_size)]

    def check(
        self,
        report: Path,
        *arguments: str | Path,
        exact: bool = True,
        env: Mapping[str, str] | None = None,
        leave_out: frozenset[str] = frozenset(),
    ) -> list[dict[str, object]]:
        """Behaviour, places of calls, counts; what `count` wrote. ``exact``: the number of calls does not depend on
        timing."""
        report.unlink(missing_ok=True)
        env = {"FLICKER_AOT_OUTPUT": str(report), **(env or {})}
        native = run([self.original, *arguments], env=env)
        ours = run([self.program, *arguments], env=env)
        told = [text.replace(bytes(self.program), bytes(self.original)) for text in (ours.stderr, ours.stdout)]
        assert (native.stderr, native.stdout, native.status) == (*told, ours.status)
        lines: list[dict[str, object]] = [json.loads(line) for line in report.read_text().splitlines()]
        counted = counted_calls(report)
        assert {line["exe"] for line in lines} == {str(self.original)}
        assert not self.escapes(self.trace(*arguments, env=env))
        if exact:
            wanted = oracle.trace([self.original, *arguments], env=env).calls(self.original)
            assert not differences(counted, wanted, LOADING | TIMING | leave_out)
        return lines


def single(original: Path, out: Path, *options: str | Path) -> Single:
    return Single(original=original, program=rewrite(original, out, *options))
