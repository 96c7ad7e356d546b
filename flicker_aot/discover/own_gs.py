"""Instructions that read or set gs. In: an Image and what was decoded of it. Out: addresses of those proved code.

A program with one of them has a gs of its own, which the runtime must leave to it from the start. (ARCH_SET_GS is a
system call, and needs nothing here.) rdgsbase and wrgsbase are rare enough to be looked for everywhere; loads of the
segment register, whose two bytes occur by chance, only in the functions that were decoded for their system calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from ..model.image import Image
from .flow import Decoded, descend
from .functions import Functions

_SEARCHED: Final = b"\x0f\xae"
_BASE: Final = re.compile(rb"(?s)\xf3[\x40-\x4f]?\x0f\xae[\xc8-\xcf\xd8-\xdf]")  # rdgsbase, wrgsbase
_LONGEST_PREFIX: Final = 2
# mov r/m,%gs; pop %gs; lgs
_LOAD: Final = re.compile(rb"(?s)[\x40-\x4f\x66]{0,2}(\x8e[\x28-\x2f\x68-\x6f\xa8-\xaf\xe8-\xef]|\x0f\xa9|\x0f\xb5)")


def find_gs_uses(image: Image, functions: Functions, decoded: Iterable[Decoded]) -> tuple[int, ...]:
    """Ascending vaddrs of proved instructions."""
    known = list(decoded)
    found = {vaddr for part in known for vaddr in _loads(image, part)}
    for vaddr in _bases(image):
        around = [part for part in known if part.start <= vaddr < part.end]
        function = functions.at(vaddr)
        if not around and function is not None and function.source != "gap":
            roots = [root for root, _ in function.roots]
            around = [descend(image, function.start, function.end, roots)]
            known += around
        if any(_is_proved(part, vaddr) for part in around):
            found.add(vaddr)
    return tuple(sorted(found))


def _is_proved(part: Decoded, vaddr: int) -> bool:
    return vaddr in part.insns or (part.clean and vaddr in part.linear)


def _bases(image: Image) -> Iterator[int]:
    """Where the bytes of rdgsbase or wrgsbase stand."""
    for segment in image.exec_loads:
        end = segment.offset + segment.filesz
        at = image.data.find(_SEARCHED, segment.offset, end)
        while at >= 0:
            for start in range(max(at - _LONGEST_PREFIX, segment.offset), at):
                match = _BASE.match(image.data, start, end)
                if match is not None and match.end() == at + 3:
                    yield start + segment.vaddr - segment.offset
            at = image.data.find(_SEARCHED, at + 1, end)


def _loads(image: Image, part: Decoded) -> Iterator[int]:
    code = image.read(part.start, part.end - part.start)
    for match in re.finditer(_LOAD, code):
        for start in range(match.start(), match.start(1) + 1):
            insn = part.insns.get(part.start + start)
            if insn is not None and _LOAD.match(insn.data):
                yield insn.vaddr
