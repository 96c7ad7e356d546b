"""Proves an output against its input. In: the bytes of both files. Out: findings, none for a good output.

The note in the output is read as a claim: each part of it is checked against both files. Nothing is shared with the
planner, the layout, the emitter or ``x86/``; rules and structures are stated again from the documents.

What is proved and what is not: docs/verifier.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from .closed import check_closed
from .debug_state import check_debug_state
from .finding import Finding, Unsound
from .headers import check_headers, check_shown_table
from .loader_opens import check_loader_opens
from .note import find_claim
from .ownership import check_ownership
from .rawelf import read_raw
from .reach import check_reach
from .second_reader import check_second_reader
from .sections import check_sections
from .subject import Window, make_subject, read_windows
from .tables import check_tables, read_tables
from .trampolines import check_trampolines
from .unwind import check_unwind, check_unwind_bytes
from .windows import check_windows


def verify(original: bytes, output: bytes) -> tuple[Finding, ...]:
    """Everything that is wrong with ``output`` as a rewriting of ``original``; empty for a good one. Never raises."""
    findings: list[Finding] = []
    try:
        for finding in _verify(original, output):
            findings.append(finding)  # one by one: what was found stays, whatever the next check does
    except Unsound as stop:
        findings.append(stop.finding)
    except Exception as error:
        # A verifier that dies has not verified: whatever confused it counts against the output.
        message = f"the verifier failed: {type(error).__name__}: {error}"
        findings.append(Finding(code="verifier", vaddr=None, message=message))
    return tuple(findings)


def _verify(original: bytes, output: bytes) -> Iterator[Finding]:
    before, after = read_raw(original, "input"), read_raw(output, "output")
    claim = find_claim(after)
    if claim is None:
        yield Finding(code="note", vaddr=None, message="the output has no flicker-aot note")
        return
    digest = hashlib.sha256(original).hexdigest()
    if (claim.input_size, claim.input_sha256) != (len(original), digest):
        # Everything else would be wrong, too, and say nothing.
        message = f"the note is of {claim.input_size} bytes with sha256 {claim.input_sha256}, this is {digest}"
        yield Finding(code="input", vaddr=None, message=message)
        return
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
    yield from check_second_reader(subject)
