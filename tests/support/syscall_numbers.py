"""System call names and numbers from the kernel's own header: a second opinion on the package's table.

In: asm/unistd_64.h as installed with the C compiler. Out: name -> number.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache

OTHER = "other"
X32 = "x32"
_X32_BIT = 1 << 30


@cache
def numbers() -> dict[str, int]:
    """Every ``__NR_`` name of x86-64, without the prefix."""
    out = subprocess.run(
        ["gcc", "-E", "-dM", "-include", "asm/unistd_64.h", "-x", "c", "/dev/null"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {m[1]: int(m[2]) for m in re.finditer(r"^#define __NR_(\w+) (\d+)$", out, re.MULTILINE)}


@cache
def _names() -> dict[int, str]:
    return {number: name for name, number in numbers().items()}


def name_of(number: int) -> str:
    """The call's name; "x32", or "other" for a number that the header does not have, as the count tool says it."""
    return _names().get(number, X32 if 0 <= number - _X32_BIT < 1024 else OTHER)
