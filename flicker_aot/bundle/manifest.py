"""What a bundle holds, on disk. In: records. Out: DIR/manifest.json; and back (docs/manifest-schema.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ..errors import InputError
from ..model.tree import FileRecord
from ..tree.manifest import document_of, record_of

NAME: Final = "manifest.json"
SCHEMA: Final = "flicker-aot/bundle/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledFile:
    """``original``, ``aliases``: absolute paths; ``copy``: below the bundle's folder, with ``copy_sha256``."""

    original: str
    copy: str
    copy_sha256: str
    aliases: tuple[str, ...]
    record: FileRecord  # its path is the original's without the first slash


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleManifest:
    """``program``: the copy that DIR was made for."""

    tool_version: str
    tool: str
    program: str
    follows: bool
    files: tuple[BundledFile, ...]


def manifest_text(manifest: BundleManifest) -> str:
    document = {
        "schema": SCHEMA,
        "tool_version": manifest.tool_version,
        "tool": manifest.tool,
        "program": manifest.program,
        "follow_exec": manifest.follows,
    }
    text = json.dumps(document, indent=1)[:-2]
    body = ",\n".join("  " + json.dumps(_document(file)) for file in manifest.files)
    return f'{text},\n "files": [\n{body}\n ]\n}}\n'


def _document(file: BundledFile) -> dict[str, Any]:
    own = {
        "path": file.copy,
        "original": file.original,
        "aliases": list(file.aliases),
        "copy_sha256": file.copy_sha256,
    }
    return own | {key: value for key, value in document_of(file.record).items() if key not in own}


def read_bundle_manifest(folder: Path) -> BundleManifest:
    """InputError where ``folder`` is no bundle, or its manifest is damaged."""
    path = folder / NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}: not a bundle, or not a whole one") from error
    except ValueError as error:
        raise InputError(f"{path}: damaged: {error}") from error
    try:
        if document.get("schema") != SCHEMA:
            raise InputError(f"{path}: schema: expected {SCHEMA}, found {document.get('schema')}")
        return BundleManifest(
            tool_version=str(document["tool_version"]),
            tool=str(document["tool"]),
            program=str(document["program"]),
            follows=document["follow_exec"] is True,
            files=tuple(_files(document["files"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged: {error!r}") from error


def _files(documents: Iterable[Any]) -> Iterable[BundledFile]:
    for document in documents:
        record = record_of(document)
        original = str(document["original"])
        record = replace(record, entry=replace(record.entry, path=original.removeprefix("/")))
        yield BundledFile(
            original=original,
            copy=str(document["path"]),
            copy_sha256=str(document["copy_sha256"]),
            aliases=tuple(map(str, document["aliases"])),
            record=record,
        )
