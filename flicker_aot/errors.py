"""The exceptions of this package and the exit code of each.

FlickerError
 +- InputError         3  bad or unsupported input: not ELF, truncated, i386, already rewritten ...
 +- UsageError         2  options that do not fit together, OUT exists without --force, IN = OUT
 +- PolicyError        1  --strict or --on-refusal fail not met; nothing was written
 +- VerificationError  4  the output failed verification; nothing was written
 +- InternalError     70  our bug

A message is one line and names the path, and where they apply the address, what was expected and what was found. That
of --strict is followed by a list.
"""

from __future__ import annotations


class FlickerError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 70


class InputError(FlickerError):
    """The input cannot be rewritten: the file's fault, or a kind of file that is not supported."""

    exit_code = 3


class UsageError(FlickerError):
    """The call is wrong: options, paths."""

    exit_code = 2


class PolicyError(FlickerError):
    """The input could be rewritten, but not as strictly as was asked. ``places``: a line for each reason."""

    exit_code = 1

    def __init__(self, message: str, places: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.places = places


class VerificationError(FlickerError):
    """The verifier rejected the output."""

    exit_code = 4


class InternalError(FlickerError):
    """An invariant of ours does not hold."""

    exit_code = 70
