"""``run``: a program is rewritten into a cache, once, and executed from there."""

from .launch import LaunchRequest, launch

__all__ = ["LaunchRequest", "launch"]
