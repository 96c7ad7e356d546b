"""What may lead to an address, one byte offset at a time: slow, and written from the rule (docs/design.md) alone.

In: an image, an address. Out: (kind, place, address) of each way, the second opinion on ``plan.ways``.
"""

from __future__ import annotations

from flicker_aot.model.image import ET_EXEC, Image
from flicker_aot.model.plan import WayKind

SHORT_JUMPS = {0xEB, *range(0x70, 0x80), 0xE0, 0xE1, 0xE2, 0xE3}


def all_ways(image: Image, target: int) -> list[tuple[WayKind, int, int]]:
    """But for relocations."""
    data, found = image.data, []
    for s in image.exec_loads:
        code = data[s.offset : s.offset + s.filesz]
        for at in range(len(code)):
            here, rel8, rel32 = s.vaddr + at, code[at + 1 : at + 2], code[at : at + 4]
            if code[at] in SHORT_JUMPS and rel8 and here + 2 + int.from_bytes(rel8, "little", signed=True) == target:
                found.append((WayKind.REL8, here, target))
            if len(rel32) == 4 and here + 4 + int.from_bytes(rel32, "little", signed=True) == target:
                found.append((WayKind.REL32, here, target))
    size = 4 if image.type == ET_EXEC and target < 1 << 32 else 8
    for at in range(len(data) - size + 1):
        if int.from_bytes(data[at : at + size], "little") == target:
            found.append((WayKind.WORD, at, target))
    return found
