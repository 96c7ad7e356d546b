"""A dynamic program that is one file: it hosts the runtime, which patches what is mapped by plans made here."""

from .check import check_plans
from .run import is_dynamic_program, rewrite_single

__all__ = ["check_plans", "is_dynamic_program", "rewrite_single"]
