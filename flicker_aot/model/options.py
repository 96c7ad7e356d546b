"""What the user asked for. In: nothing. Out: values made by ``cli`` and read by the stages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class OnRefusal(Enum):
    TRAP = "trap"
    KEEP = "keep"
    FAIL = "fail"


class Role(Enum):
    """Who brings the runtime into the process (docs/design.md, "Hosts and clients")."""

    HOST = "host"  # the file itself, started by the kernel at e_entry: a static program
    INTERPRETER = "interpreter"  # the file itself, a program interpreter at its own path: e_entry stays
    CLIENT = "client"  # another file: a library, an interpreter or a dynamic program
    PROGRAM = "program"  # its interpreter: a dynamic program in a bundle, whose start maps the bundle's interpreter
    SINGLE = "single"  # the file itself: a dynamic program alone, whose start maps the machine's interpreter

    @property
    def is_client(self) -> bool:
        """Whether the file has trampolines and no runtime."""
        return self in (Role.CLIENT, Role.PROGRAM)

    @property
    def hides_interpreter(self) -> bool:
        """Whether the kernel is not to see PT_INTERP of the file, which its start serves."""
        return self in (Role.PROGRAM, Role.SINGLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePlace:
    """Where a file stands in a bundle. ``depth``: components of its path below the bundle's folder.

    ``interpreter``: path below the folder, of a dynamic program's. ``follows``: execs run copies (--follow-exec).
    ``is_libc``: an interpreter that is the C library as well.
    """

    depth: int
    interpreter: str | None = None
    follows: bool = False
    is_libc: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a plan for a file depends on besides the file: --only, --except, --on-refusal."""

    only: frozenset[int] | None = None
    excluded: frozenset[int] | None = None
    on_refusal: OnRefusal = OnRefusal.TRAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    tool: str = "none"
    hook: Path | None = None
    strict: bool = False
    on_refusal: OnRefusal = OnRefusal.TRAP
    only: frozenset[int] | None = None  # system call numbers; None: all
    vdso: str = "hook"
    vsyscall: str = "leave"  # calls of the kernel's vsyscall page: "leave", "trap"
    guard: str = "auto"  # code that appears at run time: "auto", "on", "off", "patch"
    role: Role = Role.HOST
    exe_path: Path | None = None  # what /proc/self/exe answers; None: left alone
    bundle: BundlePlace | None = None

    @property
    def has_plans(self) -> bool:
        """The runtime patches what the program maps or makes: a dynamic program's, and a static one's with --guard
        patch."""
        is_static = self.role is Role.HOST and self.bundle is None
        return self.role is Role.SINGLE or (is_static and self.guard == "patch")
