"""What the verifier says. In: nothing. Out: ``Finding`` values and the exception that ends a check early."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with an output file.

    ``code`` is stable and names the rule ("bytes", "window", "trampoline", ...); ``vaddr`` is where in the program,
    None where the finding concerns no address; ``message`` says what was expected and what was found.
    """

    code: str
    vaddr: int | None
    message: str

    def __str__(self) -> str:
        place = "" if self.vaddr is None else f" at {self.vaddr:#x}"
        return f"{self.code}{place}: {self.message}"


class Unsound(Exception):
    """A check cannot go on: ``finding`` says why. Never leaves ``verify``."""

    def __init__(self, code: str, vaddr: int | None, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(code=code, vaddr=vaddr, message=message)
