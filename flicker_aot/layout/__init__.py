"""Where everything goes. In: ``Image``, ``Code``, ``Plan``, the runtime's file. Out: a ``Layout``."""

from .layout import lay_out
from .stub import Stub, read_stub

__all__ = ["Stub", "lay_out", "read_stub"]
