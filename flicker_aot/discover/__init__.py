"""Discovery: which bytes are system calls. In: an Image. Out: ``Code``, every candidate with a verdict."""

from .callers import resolve_wrappers
from .discover import discover

__all__ = ["discover", "resolve_wrappers"]
