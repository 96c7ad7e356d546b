"""The output file. In: ``Image`` and ``Layout``. Out: its bytes; or the file on disk."""

from .output import emit
from .write import write_atomic

__all__ = ["emit", "write_atomic"]
