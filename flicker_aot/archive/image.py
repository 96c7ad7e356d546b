"""Container images. In: an OCI layout (a folder or a tar of one) or what docker save writes. Out: the files of the
image as a container sees them.

Source: OCI image specification 1.1: image-layout.md, image-index.md, manifest.md, layer.md ("Whiteouts"). Layers are
read from the top: what an upper layer replaced or removed is no part of the image.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ..model.corpus import Package
from . import tar
from .compressed import decompressed, format_of
from .members import Archive, Item, Limits, Passed, Place
from .stream import ArchiveError, Stream, TooMuch

LAYOUT, INDEX, DOCKER = "oci-layout", "index.json", "manifest.json"
_DOCUMENT_LIMIT: Final = 4 << 20
_MANIFESTS: Final = 1000  # of one index, with those within
_DIGEST: Final = re.compile(r"(sha256|sha512):[0-9a-f]{64,128}")
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_NAMES: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")

# A path in the layout -> its bytes and their count; None where there is nothing.
Opener = Callable[[str], tuple[Stream, int] | None]


class Image:
    """One image: its name and its layers, the lowest first, as paths in the layout."""

    def __init__(self, package: Package, layers: list[str]) -> None:
        self.package = package
        self.layers = layers


def images(opened: Opener, path: str) -> Iterator[Image | Passed]:
    """The images for x86-64 Linux in the layout ``path``; those for other platforms are passed over."""
    try:
        if opened(INDEX) is not None:
            todo = [(_document(opened, INDEX), "")]
            left = _MANIFESTS
            while todo:
                document, name = todo.pop()
                for entry in reversed(_list(document, "manifests")):
                    left -= 1
                    if left < 0:
                        raise ArchiveError(f"more than {_MANIFESTS} manifests")
                    yield from _entry(opened, path, entry, name, todo)
        else:
            for entry in _list({"images": _document(opened, DOCKER)}, "images"):
                tags = entry.get("RepoTags") or [path]
                layers = [str(layer) for layer in _list(entry, "Layers")]
                yield Image(_package(str(tags[0]), "amd64"), layers)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ArchiveError(f"damaged: {type(error).__name__}: {error}") from error


def _entry(
    opened: Opener, path: str, entry: Mapping[str, Any], outer: str, todo: list[tuple[Any, str]]
) -> Iterator[Image | Passed]:
    annotations = entry.get("annotations") or {}
    name = next((str(annotations[key]) for key in _NAMES if key in annotations), outer)
    platform = entry.get("platform") or {}
    architecture, system = platform.get("architecture", "amd64"), platform.get("os", "linux")
    if (architecture, system) != ("amd64", "linux"):
        if architecture != "unknown":  # attestations, of which no container is made
            yield Passed(path, f"the image {name or entry.get('digest')} for {system}/{architecture}: not read", False)
        return
    document = _document(opened, blob_path(str(entry["digest"])))
    if "manifests" in document:
        todo.append((document, name))
        return
    layers = [blob_path(str(layer["digest"])) for layer in _list(document, "layers")]
    yield Image(_package(name or posixpath.basename(path), architecture), layers)


def _package(name: str, architecture: str) -> Package:
    """ "name:tag": the tag is the version."""
    base, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        base, tag = name, ""
    return Package(kind="image", name=base, version=tag, architecture=architecture)


def blob_path(digest: str) -> str:
    """blobs/ALGORITHM/HEX; ArchiveError for what is no digest: nothing outside of the layout is named."""
    if not _DIGEST.fullmatch(digest):
        raise ArchiveError(f"damaged: no digest: {digest[:100]}")
    return f"blobs/{digest.replace(':', '/')}"


def _document(opened: Opener, path: str) -> Any:
    found = opened(path)
    if found is None:
        raise ArchiveError(f"{path} is not there")
    stream, size = found
    if size > _DOCUMENT_LIMIT:
        raise ArchiveError(f"{path} has {size} bytes, more than {_DOCUMENT_LIMIT}")
    return json.loads(stream.exactly(size, path))


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    found = document[key]
    if not isinstance(found, list):
        raise ArchiveError(f"damaged: {key}: expected a list, found {type(found).__name__}")
    return found


def is_docker(opened: Opener) -> bool:
    """Whether the tar's manifest.json is that of docker save: many other things are called so."""
    try:
        return bool(list(images(opened, "")))
    except ArchiveError:
        return False


def look_into_image(opened: Opener, path: str, limits: Limits) -> Iterator[Item]:
    """Every file of every image of a layout. The bound on what may come out is one for all of it."""
    archive = Archive(0, limits)
    sizes: set[str] = set()  # layers that have added to it: images share them
    try:
        for found in images(opened, path):
            if isinstance(found, Passed):
                yield found
                continue
            hidden: set[str] = set()
            for layer in reversed(found.layers):
                if layer not in sizes:
                    sizes.add(layer)
                    blob = opened(layer)
                    archive.grow(0 if blob is None else blob[1])
                yield from _layer(opened, Place(path, package=found.package), layer, hidden, archive)
    except ArchiveError as error:
        yield Passed(path, str(error), True)


def _layer(opened: Opener, place: Place, layer: str, hidden: set[str], archive: Archive) -> Iterator[Item]:
    """``hidden``: paths of which lower layers say nothing, nor of what is below them; this layer's are added."""
    blob = opened(layer)
    if blob is None:
        yield Passed(place.path, f"the layer {layer} is not there", True)
        return
    stream, _ = blob
    mine: set[str] = set()
    try:
        compression = format_of(stream.peek(16))
        contents = archive.bounded(decompressed(stream, compression)) if compression else stream
        yield from archive.members(_visible(tar.members(contents), hidden, mine), place._replace(depth=1))
    except TooMuch:
        raise
    except ArchiveError as error:
        yield Passed(place.path, f"the layer {layer}: {error}", True)
    hidden |= mine


def _visible(members: Iterator[tar.Member], hidden: set[str], mine: set[str]) -> Iterator[tar.Member]:
    for member in members:
        path = posixpath.normpath("/" + member.name)
        folder, name = posixpath.split(path)
        if name == _OPAQUE:
            mine.add(folder + "/")
        elif name.startswith(_WHITEOUT):
            mine.add(posixpath.join(folder, name.removeprefix(_WHITEOUT)))
        elif not _is_hidden(path, hidden):
            if not member.is_folder:
                mine.add(path)
            yield member


def _is_hidden(path: str, hidden: set[str]) -> bool:
    """Whether an upper layer has the path, or something that is no folder above it, or an opaque folder above it."""
    if path in hidden:
        return True
    while path != "/":
        path = posixpath.dirname(path)
        if path in hidden or path + "/" in hidden:
            return True
    return False
