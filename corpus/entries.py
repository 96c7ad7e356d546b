"""What the corpus consists of. In: manifest.toml, what is installed, a compiler. Out: entries with their files."""

from __future__ import annotations

import glob
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

HERE: Final = Path(__file__).parent
# Without a build id, whose bytes are random: they may be those of a system call.
_LINK: Final = ("gcc", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,-z,noexecstack")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file to rewrite. ``runs``: arguments of runs that must go as the original's; ``is_trap``: one of corpus/src.

    ``place``: a command or path as the manifest has it, or the name of the trap's source.
    """

    name: str
    place: str
    package: str
    runs: tuple[tuple[str, ...], ...]
    is_trap: bool

    def file(self, folder: Path) -> Path | None:
        """The file itself; a trap is built in ``folder``. None where it is not installed."""
        if self.is_trap:
            program = folder / f"{self.name}.original"
            subprocess.run([*_LINK, "-o", program, HERE / "src" / self.place], check=True)
            return program
        place = Template(self.place).substitute(_FOLDERS)
        found = shutil.which(place) or next(iter(sorted(glob.glob(place))), "")  # noqa: PTH207 -- absolute
        return Path(found).resolve() if found else None


def entries() -> list[Entry]:
    """All of the manifest, traps first."""
    manifest: dict[str, list[dict[str, Any]]] = tomllib.loads((HERE / "manifest.toml").read_text(encoding="utf-8"))
    traps = [Entry(name=t["name"], place=t["source"], package="", runs=((),), is_trap=True) for t in manifest["trap"]]
    real = [
        Entry(
            name=p["name"],
            place=p["path"],
            package=p["package"],
            runs=tuple(tuple(run) for run in p.get("runs", ())),
            is_trap=False,
        )
        for p in manifest["program"]
    ]
    return traps + real


class _Folders(Mapping[str, str]):
    """Folders of toolchains, by the command that tells them; a name in ``${}`` of the manifest's paths."""

    _COMMANDS: Final = {"GOTOOLDIR": ("go", "env", "GOTOOLDIR"), "RUSTSYSROOT": ("rustc", "--print", "sysroot")}

    def __getitem__(self, name: str) -> str:
        command = self._COMMANDS[name]
        if not shutil.which(command[0]):
            return "/nonexistent"
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def __iter__(self) -> Iterator[str]:
        return iter(self._COMMANDS)

    def __len__(self) -> int:
        return len(self._COMMANDS)


_FOLDERS: Final = _Folders()
