"""The note in the output (docs/design.md, "The note"). In: everything placed. Out: its content, and its bytes."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from .. import __version__
from ..model.code import Code, Verdict
from ..model.image import Image
from ..model.options import Asked, BundlePlace, Options, Role
from ..model.plan import Plan, Tactic
from ..model.plans import FilePlan
from .abi import CONFIG_SIZE, FlkTemplate
from .stub import Stub
from .trampolines import Slot

NOTE_NAME: Final = b"flicker-aot\0"
NOTE_TYPE: Final = 1
FORMAT: Final = 6


def fixed_part(
    image: Image,
    code: Code,
    plan: Plan,
    options: Options,
    plans: Sequence[FilePlan] = (),
    asked: Asked | None = None,
) -> dict[str, object]:
    """What does not depend on addresses."""
    return {
        "format": FORMAT,
        "tool_version": __version__,
        "input_sha256": image.sha256,
        "input_size": len(image.data),
        "role": options.role.value,
        "vdso": options.vdso,
        "guard": options.guard,
        "vsyscall": options.vsyscall,
        "exe_path": "" if options.exe_path is None else str(options.exe_path),
        "bundle": _place(options.bundle),
        "plans": [[str(p.path), p.sha256, p.build_id.hex(), plan_sha256(p)] for p in plans],
        "asked": None if asked is None or options.role is not Role.SINGLE else _asked(asked),
        "tool": options.tool if options.hook is None else f"hook:{options.hook.name}",
        "debug_state": plan.debug_state,
        "loader_opens": [call.vaddr for call in plan.loader_opens],
        "kept": [p.site.vaddr for p in plan.patches if p.tactic is Tactic.KEEP],
        "gs_uses": list(code.gs_uses),
        "unknown": [c.vaddr for c in code.candidates if c.verdict is Verdict.UNKNOWN],
    }


def _place(place: BundlePlace | None) -> list[object] | None:
    """[depth, interpreter ("": none), whether execs run copies, whether it is a C library]."""
    return None if place is None else [place.depth, place.interpreter or "", place.follows, place.is_libc]


def _asked(asked: Asked) -> list[object]:
    """[--only, --except, --on-refusal]; null: not given."""
    numbers = [None if found is None else sorted(found) for found in (asked.only, asked.excluded)]
    return [*numbers, asked.on_refusal.value]


def plan_sha256(plan: FilePlan) -> str:
    """Of all that a plan says, wherever it is put."""
    h = hashlib.sha256()
    image = (plan.size_bytes, plan.low, plan.span, plan.first_offset, plan.is_aligned, plan.r[0], plan.rx[0])
    h.update(struct.pack("<10Q", *image, len(plan.changes), len(plan.r[1]), len(plan.rx[1])))
    h.update(plan.build_id.ljust(32, b"\0") + struct.pack("<QQ", *plan.digest))
    for change in plan.changes:
        h.update(struct.pack("<QQ", change.vaddr, len(change.old)) + change.old + change.new)
    for vaddr, data in (*plan.runs, (0, plan.r[1]), (0, plan.rx[1])):
        h.update(struct.pack("<QQ", vaddr, len(data)) + data)
    return h.hexdigest()


def runtime_sha256(stub: Stub) -> str:
    """Of text and data of the runtime as it was linked, its configuration zeroed."""
    after = stub.config + CONFIG_SIZE
    return hashlib.sha256(stub.text[: stub.config] + bytes(CONFIG_SIZE) + stub.text[after:] + stub.data).hexdigest()


def placed_part(
    slots: Iterable[Slot],
    base: int,
    moved: Mapping[int, int],
    segments: Mapping[str, Sequence[int]],
    runtime: Mapping[str, int],
    template: FlkTemplate,
) -> dict[str, object]:
    """What does. ``base``: of the slots; ``moved``: old vaddr -> its copy's."""
    sites = []
    retargets = []
    for slot in slots:
        patch = slot.patch
        sites.append(
            {
                "site": patch.site.vaddr,
                "tactic": patch.tactic.value,
                "class": patch.soundness.value,
                "window": [patch.start, patch.end],
                "trampoline": [base + slot.start, slot.end - slot.start],
                "entry": base + slot.entry,
                "hole": patch.hole and [patch.hole.vaddr, patch.hole.start, patch.hole.end],
                "evicted": [[insn.vaddr, base + offset] for insn, offset in slot.evicted],
                "before": [[insn.vaddr, base + offset] for insn, offset in slot.before],
                "after": [[insn.vaddr, base + offset] for insn, offset in slot.after],
                "fills": [[fill.vaddr, fill.kind.value] for fill in patch.fills],
                "numbers": list(patch.site.numbers),
            }
        )
        retargets += [[r.branch.vaddr, r.target, moved[r.target]] for r in patch.retargets]
    labels = {name: getattr(template, name) for name in FlkTemplate.__slots__ if name != "reserved"}
    return {
        "sites": sites,
        "retargets": retargets,
        "segments": {name: list(values) for name, values in segments.items()},
        "runtime": dict(runtime),
        "template": labels,
    }


def note_bytes(content: Mapping[str, object]) -> bytes:
    """An Elf64_Nhdr with name and descriptor, padded to 4 bytes. The same content gives the same bytes."""
    text = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
    descriptor = zlib.compress(text, 9)
    head = struct.pack("<III", len(NOTE_NAME), len(descriptor), NOTE_TYPE) + NOTE_NAME
    return head + descriptor + bytes(-len(descriptor) % 4)
