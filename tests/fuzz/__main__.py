"""python -m tests.fuzz [LIBFUZZER FLAGS]: damaged ELF files, kept where they reach code that none before them reached.

In: small programs of each kind, built here. Out: nothing, or a file `crash-*` (an exception that is no refusal, or
10 s of CPU time), `timeout-*` or `oom-*` (1 GiB) in build/fuzz, for tests/malformed/crashes/; the run ends with it.
A file whose output the verifier rejects is a bug too, though nothing is written then: `rejected-*`, one for each kind
of message, and the run goes on to find all of them. Files that reach something stay in build/fuzz/corpus for the next
run. FUZZ_SECONDS is how long. Needs atheris (libFuzzer for Python).
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["flicker_aot"], enable_loader_override=False):
    from flicker_aot.elf.read import is_library, read_image
    from flicker_aot.errors import FlickerError, InternalError, VerificationError
    from flicker_aot.model.options import Options, Role
    from flicker_aot.pipeline import examine, load_stages

    load_stages()

from ..malformed.damage import DAMAGES, message_kind
from .seeds import build_seeds

FOLDER: Final = Path("build/fuzz")
CPU_SECONDS: Final = 10.0  # for one file
HANG_SECONDS: Final = 120  # of the clock, which says little on a busy machine
MEMORY_MIB: Final = 1024 + 256  # the second is what the process has before
MAX_BYTES: Final = 1 << 16
_STRUCTURED: Final = 0.6  # of the mutations; the others are libFuzzer's own


def rewrite(data: bytes) -> None:
    """What `rewrite` and `rootfs` do with a file, in memory. Whatever is no refusal is raised."""
    start = time.process_time()
    try:
        image = read_image(Path("input"), data)
        is_client = image.is_dynamic or is_library(image)
        role = Role.CLIENT if is_client else Role.HOST
        examine(image, Options(role=role, exe_path=None if is_client else Path("/input")), lambda _: None)
    except VerificationError as error:
        keep_rejected(data, str(error))
    except InternalError:
        raise
    except FlickerError:
        pass
    if (took := time.process_time() - start) > CPU_SECONDS:
        raise RuntimeError(f"{took:.1f} s")


def keep_rejected(data: bytes, message: str) -> None:
    """Write the first file of each kind of ``message``: without what numbers it names."""
    kept = FOLDER / f"rejected-{message_kind(message)}"
    if not kept.exists():
        kept.write_bytes(data)
        print(f"{kept}: {message}", file=sys.stderr, flush=True)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Damage that knows ELF, or libFuzzer's."""
    choose = random.Random(seed)
    if len(data) <= 64 or choose.random() > _STRUCTURED:
        return bytes(atheris.Mutate(data, max_size))
    changed = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 4))):
        if len(changed) > 64:
            choose.choice(DAMAGES)(changed, choose)
    return bytes(changed[:max_size])


def main() -> None:
    corpus = FOLDER / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    build_seeds(corpus)
    for old in sorted(FOLDER.glob("rejected-*")):  # of another run: kept if it still is
        data = old.read_bytes()
        old.unlink()
        rewrite(data)
    for seed in sorted(corpus.glob("seed-*")):
        rewrite(seed.read_bytes())  # imports what is imported late, too
    flags = [
        f"-max_total_time={os.environ.get('FUZZ_SECONDS', '60')}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-max_len={MAX_BYTES}",
        f"-artifact_prefix={FOLDER}/",
    ]
    atheris.Setup([sys.argv[0], *flags, *sys.argv[1:], str(corpus)], rewrite, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
