"""Who hosts the runtime in each file's processes. In: entries and facts of a tree. Out: a role for each file, or none.

The kernel starts a dynamic program at its interpreter, so every file that some program of the tree names as such hosts
the runtime, wherever links lead to it; a static program hosts its own; whatever else is loaded is a client. An ld.so
that no program names is a host too: it can be run as a program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..model.options import Role
from ..model.tree import Entry, Facts, Kind
from .resolve import resolve

_LOADER_NAMES: Final = ("ld-linux-x86-64.so.2", "ld-musl-x86_64.so.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """``roles``: path -> role of what can be rewritten. ``interpreters``: PT_INTERP -> path in the tree, or None."""

    roles: Mapping[str, Role]
    interpreters: Mapping[str, str | None]


def assign_roles(root: Path, entries: Iterable[Entry], facts: Mapping[str, Facts]) -> Roles:
    """``facts`` of regular files among ``entries``, of each hard link's group of names one."""
    identity = {e.path: (e.dev, e.ino) for e in entries}
    wanted = {f.interpreter for f in facts.values() if f.interpreter is not None and f.kind.is_rewritable}
    resolved = {name: resolve(root, name) if name.startswith("/") else None for name in sorted(wanted)}
    hosts = {identity[p] for p in resolved.values() if p is not None and p in identity}
    roles: dict[str, Role] = {}
    for path, fact in facts.items():
        role = Role.INTERPRETER if identity[path] in hosts else role_of(fact)
        if fact.kind.is_rewritable and role is not None:
            roles[path] = role
    return Roles(roles=roles, interpreters=resolved)


def role_of(fact: Facts) -> Role | None:
    """What a file's own headers say; None for one that cannot be rewritten."""
    if not fact.kind.is_rewritable:
        return None
    if fact.soname in _LOADER_NAMES:
        return Role.INTERPRETER
    return Role.HOST if fact.kind is Kind.STATIC else Role.CLIENT
