"""Packages. In: a ``Stream`` of a .deb or .rpm. Out: what package it is, and where its files begin.

Sources: deb(5), ar(5); rpm: docs/manual/format_v4 (lead, two headers, payload).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..model.corpus import Package
from .compressed import decompressed, format_of
from .stream import ArchiveError, Stream
from .tar import Member
from .tar import members as tar_members

AR: Final = b"!<arch>\n"
RPM: Final = b"\xed\xab\xee\xdb"
_AR_HEADER: Final = 60
_AR_END: Final = b"`\n"
_CONTROL_LIMIT: Final = 1 << 20
_FIELD: Final = re.compile(r"^(Package|Version|Architecture):[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)

_RPM_LEAD: Final = 96
_RPM_HEADER: Final = b"\x8e\xad\xe8\x01"
_RPM_ENTRIES: Final = 1 << 16
_RPM_STORE: Final = 64 << 20
_STRING: Final = 6
_NAME, _VERSION, _RELEASE, _ARCH, _SOURCE_RPM = 1000, 1001, 1002, 1022, 1044


def ar_members(stream: Stream) -> Iterator[Member]:
    """The members of an ar archive, whose magic is still to be read."""
    stream.exactly(len(AR), "the magic")
    while True:
        at = stream.position
        header = stream.read(_AR_HEADER)
        if not header.strip(b"\n\0"):
            return
        if len(header) < _AR_HEADER:
            raise ArchiveError(f"cut short: a header at {at:#x} has {len(header)} of {_AR_HEADER} bytes")
        size = header[48:58].strip()
        if header[58:] != _AR_END or not size.isdigit():
            raise ArchiveError(f"damaged: no ar header at {at:#x}")
        end = stream.position + int(size) + int(size) % 2
        name = header[:16].strip().removesuffix(b"/").decode("utf-8", "surrogateescape")
        yield Member(name=name, size=int(size), data=stream.part(int(size)))
        if stream.peek(1):  # the last one need not be padded
            stream.skip(end - stream.position)


def is_deb(head: bytes) -> bool:
    return head.startswith(AR) and head[len(AR) :].startswith(b"debian-binary")


def deb_package(control: Stream) -> Package:
    """What the control file in control.tar says. ArchiveError without one."""
    name = format_of(control.peek(16))
    for member in tar_members(decompressed(control, name) if name else control):
        if member.name.removeprefix("./") == "control" and member.is_regular:
            if member.size > _CONTROL_LIMIT:
                break
            text = member.data.exactly(member.size, "the control file").decode("utf-8", "replace")
            fields = dict(_FIELD.findall(text))
            if "Package" in fields:
                return Package(
                    kind="deb",
                    name=fields["Package"],
                    version=fields.get("Version", ""),
                    architecture=fields.get("Architecture", ""),
                )
    raise ArchiveError("damaged: no control file that names the package")


def rpm_package(stream: Stream) -> Package:
    """What the header says; ``stream`` is then at the payload. ArchiveError for damaged headers."""
    stream.exactly(_RPM_LEAD, "the lead")
    _rpm_header(stream, "signature")
    stream.skip(-stream.position % 8)
    tags = _rpm_header(stream, "header")
    name = tags.get(_NAME, "")
    if not name:
        raise ArchiveError("damaged: the header does not name the package")
    version = "-".join(filter(None, (tags.get(_VERSION, ""), tags.get(_RELEASE, ""))))
    return Package(kind="rpm", name=name, version=version, architecture=tags.get(_ARCH, ""))


def _rpm_header(stream: Stream, what: str) -> dict[int, str]:
    """Tag -> text of the tags that are texts."""
    head = stream.exactly(16, f"the {what}")
    entries, size = int.from_bytes(head[8:12], "big"), int.from_bytes(head[12:16], "big")
    if head[:4] != _RPM_HEADER or entries > _RPM_ENTRIES or size > _RPM_STORE:
        raise ArchiveError(f"damaged: the {what} with {entries} entries and {size} bytes")
    index = stream.exactly(16 * entries, f"the {what}'s index")
    store = stream.exactly(size, f"the {what}'s store")
    found = {}
    for at in range(0, len(index), 16):
        tag, kind, offset, _ = (int.from_bytes(index[at + i : at + i + 4], "big") for i in (0, 4, 8, 12))
        if kind == _STRING and offset < size:
            found[tag] = store[offset : store.find(b"\0", offset)].decode("utf-8", "replace")
    return found
