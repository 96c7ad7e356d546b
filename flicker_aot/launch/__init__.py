"""The command ``run``. In: a program with its arguments. Out: what to exec, from a cache."""

from .find import Start, find_start
from .run import RunRequest, prepare

__all__ = ["RunRequest", "Start", "find_start", "prepare"]
