"""Where everything goes. In: ``Image``, ``Code``, ``Plan``, the runtime's file. Out: a ``Layout``."""

from .layout import lay_out
from .stub import Stub, client_stub, loader_stub, read_stub

__all__ = ["Stub", "client_stub", "lay_out", "loader_stub", "read_stub"]
