"""Proves that an output file is its input plus owned edits. In: both files' bytes. Out: findings.

Independent of every other stage by design: see ``verifier``.
"""

from .finding import Finding, Unsound
from .note import Claim, read_note
from .reader_process import reader_process
from .second_reader import read_by_lief
from .verifier import verify

__all__ = ["Claim", "Finding", "Unsound", "read_by_lief", "read_note", "reader_process", "verify"]
