"""Proves an output against its input. In: the bytes of both files. Out: findings, none for a good output.

The note in the output is read as a claim: each part of it is checked against both files. Nothing is shared with the
planner, the layout, the emitter or ``x86/``; rules and structures are stated again from the documents.

What is proved and what is not: docs/verifier.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from .closed import check_closed
from .debug_state import check_debug_state
from .finding import Finding, Unsound
from .headers import check_headers, check_shown_table
from .loader_opens import check_loader_opens
from .note import Claim, find_claim
from .ownership import check_ownership
from .plans import check_plans
from .rawelf import RawElf, read_raw
from .reach import check_reach
from .second_reader import Reader, check_second_reader, read_by_lief
from .sections import check_sections
from .subject import Window, make_subject, read_windows
from .tables import check_tables, read_tables
from .trampolines import check_trampolines
from .unwind import check_unwind, check_unwind_bytes
from .windows import check_windows


def verify(original: bytes, output: bytes, read: Reader | None = read_by_lief) -> tuple[Finding, ...]:
    """Everything that is wrong with ``output`` as a rewriting of ``original``; empty for a good one. Never raises.

    ``read``: how LIEF is asked; None: not at all.
    """
    findings: list[Finding] = []
    claim: Claim | None = None
    # Of 150 MB it takes 0.15 s, in which Python holds no lock.
    with ThreadPoolExecutor(1) as threads:
        digest = threads.submit(lambda: hashlib.sha256(original).hexdigest())
        try:
            before, after = read_raw(original, "input"), read_raw(output, "output")
            claim = find_claim(after)
            if claim is None:
                return (Finding(code="note", vaddr=None, message="the output has no flicker-aot note"),)
            if claim.input_size != len(original):
                return (_other_input(claim, len(original), digest.result()),)
            for finding in _findings(before, after, claim, read):
                findings.append(finding)  # one by one: what was found stays, whatever the next check does
        except Unsound as stop:
            findings.append(stop.finding)
        except Exception as error:
            # A verifier that dies has not verified: whatever confused it counts against the output.
            message = f"the verifier failed: {type(error).__name__}: {error}"
            findings.append(Finding(code="verifier", vaddr=None, message=message))
        if claim is not None and claim.input_sha256 != digest.result():
            # Everything else is wrong, too, and says nothing.
            return (_other_input(claim, len(original), digest.result()),)
    return tuple(findings)


def _other_input(claim: Claim, size: int, digest: str) -> Finding:
    message = f"the note is of {claim.input_size} bytes with sha256 {claim.input_sha256}, this is {size} with {digest}"
    return Finding(code="input", vaddr=None, message=message)


def _findings(before: RawElf, after: RawElf, claim: Claim, read: Reader | None) -> Iterator[Finding]:
    windows: list[Window] = []
    for found in read_windows(before, claim):
        if isinstance(found, Finding):
            yield found
        else:
            windows.append(found)
    subject = make_subject(before, after, claim, tuple(windows))
    yield from check_headers(subject)
    yield from check_sections(subject)
    tables = read_tables(subject)
    yield from check_shown_table(subject, tables)
    yield from check_plans(subject, tables.plans_vaddr)
    yield from check_ownership(subject, tables)
    yield from check_tables(subject, tables)
    yield from check_windows(subject, tables.traps)
    yield from check_closed(subject)
    yield from check_trampolines(subject, tables)
    yield from check_debug_state(subject)
    yield from check_loader_opens(subject)
    yield from check_reach(subject)
    yield from check_unwind_bytes(subject)
    yield from check_unwind(subject, tables)
    if read is not None:
        yield from check_second_reader(subject, read)
