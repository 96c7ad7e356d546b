"""What is appended to a program, and found by the program in its own file, is found in the rewritten file as well."""

from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from ..support.need import need
from ..support.rewrite import Invocation, assert_same_behaviour, rewrite

SOURCE = Path(__file__).parent / "trailing" / "reads_itself.c"


def archive(offset: int) -> bytes:
    """A zip with one stored entry; its comment is ``offset``."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as file:
        file.writestr("hello.txt", "hello from the archive " * 40)
        file.comment = str(offset).encode()
    return made.getvalue()


@pytest.mark.parametrize("flags", [("-static",), ("-static-pie", "-fPIE"), ("-static", "-s")], ids=" ".join)
def test_appended_zip(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Found from the end, behind the section headers, and at its offset; other tools read it, too."""
    program = tmp_path / "program"
    subprocess.run([need("gcc"), "-O2", *flags, "-o", program, SOURCE], check=True)
    with program.open("ab") as file:
        file.write(archive(file.tell()))
    out = rewrite(program, tmp_path / "out")
    seen = assert_same_behaviour(program, out, Invocation(), status=0)
    text = seen.stdout.decode()
    assert text.count("PK") == 2 and "from the end: hello from the archive" in text, text
    with zipfile.ZipFile(out) as found:
        assert found.testzip() is None and found.namelist() == ["hello.txt"]
