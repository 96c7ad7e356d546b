"""The trampoline templates are what docs/design.md says, and keystone's wrong bytes are noticed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from flicker_aot.errors import InternalError
from flicker_aot.x86 import assemble
from flicker_aot.x86.assemble import Shape, Template, trampoline_template

from .snippets import objdump

AT, ENTER, LEAVE, RESUME, BACK = 0x600000, 0x610000, 0x620000, 0x401007, 0x401010

ENTERING = [
    "mov %rsp,%rcx",
    "mov %gs:0x0,%rsp",
    "push %rcx",
    "call 0x610000",
    "jrcxz ANSWERED",
    "pop %rsp",
    "syscall",
]
LEAVING = ["mov %rsp,%rcx", "mov %gs:0x0,%rsp", "push %rcx", "call 0x620000", "pop %rsp"]
LEA = "lea -RIP(%rip),%rcx # 0x401007"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No test sees a template that another one made."""
    trampoline_template.cache_clear()
    yield
    trampoline_template.cache_clear()


def filled(template: Template, after: bytes = b"") -> list[tuple[int, bytes, str]]:
    targets = {"enter": ENTER, "leave": LEAVE, "bound": ENTER, "leave_bound": LEAVE, "resume": RESUME}
    wanted = {name: targets[name] for name in template.holes}
    return objdump(template.fill(AT, after, wanted | {"back": BACK}), AT)


def texts(listing: list[tuple[int, bytes, str]], answered: int) -> list[str]:
    """objdump's text; the lea's displacement and the answered way's address, which depend on sizes, by name."""
    found = []
    for _, _, text in listing:
        text = text.replace(f"{answered:#x}", "ANSWERED")
        found.append("lea -RIP(%rip),%rcx" + text[text.index(" #") :] if text.startswith("lea") else text)
    return found


@pytest.mark.parametrize("after", [b"", b"\x90" * 3, b"\x90" * 96])
def test_without_leave(after: bytes) -> None:
    """objdump reads the documented sequence, the answered way behind the jump back, for any size of displaced code."""
    template = trampoline_template(Shape.ENTER)
    listing = filled(template, after)
    labels = template.labels
    answered = AT + labels["lea_end"] + len(after) + 5
    wanted = [*ENTERING, LEA, *["nop"] * len(after), "jmp 0x401010", "pop %rsp", f"jmp {AT + labels['lea']:#x}"]
    assert texts(listing, answered) == wanted
    assert sum(len(data) for _, data, _ in listing) == template.size(len(after))
    assert labels["after"] == labels["lea"]


def test_with_leave() -> None:
    """With leave, the answered way joins at the second pop, and nothing follows the jump back."""
    template = trampoline_template(Shape.ENTER_LEAVE)
    listing = filled(template)
    answered = AT + template.labels["answered"]
    assert texts(listing, answered) == [*ENTERING, *LEAVING, LEA, "jmp 0x401010"]


def test_client() -> None:
    """A client asks its slots before it leaves the program's stack, without touching a flag."""
    template = trampoline_template(Shape.CLIENT)
    listing = filled(template)
    at = {name: f"{AT + offset:#x}" for name, offset in template.labels.items()}
    switch = ["mov %rsp,%rcx", "mov %gs:0x0,%rsp", "push %rcx"]
    called = [
        "mov SLOT,%rcx",
        f"jrcxz {at['sys']}",
        *switch,
        "call *SLOT",
        f"jrcxz {at['answered']}",
        "pop %rsp",
        "syscall",
    ]
    left = ["mov SLOT,%rcx", f"jrcxz {at['lea']}", *switch, "call *SLOT", "pop %rsp"]
    found = [re.sub(r"0x[0-9a-f]+\(%rip\)", "SLOT", text) for _, _, text in listing]
    assert [text.split(" #")[0] for text in found[:16]] == called + left
    slots = [int(text.split("# ")[1], 16) for text in found if "SLOT" in text and "lea" not in text]
    assert slots == [ENTER, ENTER, LEAVE, LEAVE]


@pytest.mark.parametrize("shape", Shape)
def test_labels_are_instruction_starts(shape: Shape) -> None:
    """Every label is the offset of the instruction that it names."""
    template = trampoline_template(shape)
    by_offset = {vaddr - AT: text.split()[0] for vaddr, _, text in filled(template)}
    names = {
        "load": "mov",
        "push": "push",
        "call": "call",
        "ret": "jrcxz",
        "pop": "pop",
        "sys": "syscall",
        "lea": "lea",
    }
    if shape is not Shape.ENTER:
        names |= {"after": "mov", "vload": "mov", "vpush": "push", "vcall": "call", "answered": "pop"}
    assert {name: by_offset[template.labels[name]] for name in names} == names
    assert by_offset[template.labels["lea_end"]] == "jmp"
    assert template.labels["ret"] - template.labels["call"] == (6 if shape is Shape.CLIENT else 5)


def test_displaced_code_beyond_the_reach_of_jrcxz() -> None:
    """More displaced code than plan allows raises instead of leading somewhere."""
    template = trampoline_template(Shape.ENTER)
    with pytest.raises(InternalError, match="8 bits"):
        filled(template, b"\x90" * 127)


def test_holes_must_all_be_filled() -> None:
    """A forgotten target is noticed."""
    with pytest.raises(InternalError, match="holes"):
        trampoline_template(Shape.ENTER).fill(AT, b"", {"enter": ENTER})


def test_keystones_known_wrong_bytes_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gs:[0]` given as text: keystone 0.9 drops the segment and makes it RIP-relative; the comparison refuses that."""
    lines = assemble._WITHOUT_LEAVE
    wrong = tuple(line._replace(text="mov rsp, qword ptr gs:[0]") if line.label == "load" else line for line in lines)
    monkeypatch.setitem(assemble._SHAPES, Shape.ENTER, wrong)
    with pytest.raises(InternalError, match=r"gs:\[0\]"):
        trampoline_template(Shape.ENTER)


def test_text_that_keystone_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the assembler names the template."""
    lines = assemble._WITHOUT_LEAVE
    wrong = (lines[0]._replace(text="jmp short 1"), *lines[1:])
    monkeypatch.setitem(assemble._SHAPES, Shape.ENTER, wrong)
    with pytest.raises(InternalError, match="keystone refuses"):
        trampoline_template(Shape.ENTER)
