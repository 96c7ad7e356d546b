"""A dynamic program that is one file: it hosts the runtime, which patches what is mapped by plans made here."""

from .run import is_dynamic_program, rewrite_single

__all__ = ["is_dynamic_program", "rewrite_single"]
