"""Takes in images that were saved: an OCI layout (folder or tar) or a docker archive.

Archives are hostile: they are read in one pass by ``ctr.images.tar``, none of their names
becomes a path on disk, and every blob is held to its digest.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ctr import kernel
from ctr.errors import DigestError, ImageError
from ctr.images import config as configs
from ctr.images import digest as digests
from ctr.images import reference as references
from ctr.images.build_image import add_image, architecture
from ctr.images.compression import FileStream, Gunzip, decompressed
from ctr.images.importer import called, open_source
from ctr.images.manifest import (
    INDEXES,
    MANIFESTS,
    MAX_DOCUMENT,
    OCI_LAYER,
    Descriptor,
    parse_any_json,
    parse_descriptor,
    parse_diff_ids,
    parse_json,
    parse_manifest,
)
from ctr.images.store import REF_NAME, Entry
from ctr.images.tar import FILE, LINK, SYMLINK, Limits, MalformedError, TarReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.images.ingest import Ingest, Writer
    from ctr.images.store import ContentStore, Image

_MAX_IMAGES = 1024  # of one archive
_MAX_FILES = 65536
_MAX_NESTING = 3  # indexes in indexes
_CONTAINERD_NAME = "io.containerd.image.name"
_ATTESTATION = "vnd.docker.reference.type"


def load(store: ContentStore, source: str, *, limits: Limits | None = None) -> list[Image]:
    """Take in the images of an OCI layout (folder or tar) or a docker archive.

    ``source`` is a file, a folder, or ``-`` for standard input.  An image of several names is returned once for
    each; one that has no name has an empty ``reference``.  All come in or none.  Raises
    InvalidError when the source can't be opened, ImageError when it is no such thing, and
    DigestError when something is not what its digest says.
    """
    limits = limits or Limits()
    with store.ingest() as ingest:
        fd = open_source(source)
        try:
            files: _Files
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                files = _Folder(ingest, fd, limits)
            else:
                files = _Archive(ingest, fd, limits)
            if files.has("index.json") and files.has("oci-layout"):
                found = _Loader(ingest, files).oci()
            elif files.has("manifest.json"):
                found = _Loader(ingest, files).docker()
            else:
                raise ImageError(
                    f"cannot load {called(source)}: it is neither an OCI layout nor a docker archive",
                    hint="`ctr image import` takes the tar of a root file system",
                )
            if not found.entries:
                raise ImageError(f"cannot load {called(source)}: there is no image in it")
        except MalformedError as error:
            raise ImageError(f"cannot load {called(source)}: {error}") from None
        finally:
            os.close(fd)
        ingest.retain(found.blobs)
        ingest.commit(found.entries)
    return [store.image(entry) for entry in found.entries]


class _Files(Protocol):
    """The files of an archive or folder by their names in it."""

    def has(self, name: str) -> bool: ...

    def take(self, name: str, digest: str = "", size: int = -1) -> tuple[str, int]:
        """Take the file into the transaction; return digest and size.  Raises ImageError."""
        ...


class _Folder:
    """A folder; links in it are followed inside it only."""

    def __init__(self, ingest: Ingest, fd: int, limits: Limits) -> None:
        self._ingest = ingest
        self._fd = fd
        self._limits = limits

    def has(self, name: str) -> bool:
        try:
            os.close(self._open(name))
        except ImageError:
            return False
        return True

    def take(self, name: str, digest: str = "", size: int = -1) -> tuple[str, int]:
        fd = self._open(name)
        try:
            return self._ingest.add_stream(
                FileStream(fd), limit=self._limits.size, digest=digest, size=size
            )
        finally:
            os.close(fd)

    def _open(self, name: str) -> int:
        resolve = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_MAGICLINKS
        try:
            fd = kernel.openat2(self._fd, name, os.O_RDONLY | os.O_NONBLOCK, resolve=resolve)
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot read {name[:200]!r} of the image: {error}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(f"cannot read {name[:200]!r} of the image: it is not a file")
        return fd


class _Archive:
    """A tar, which may be standard input: all of it is taken in, in one pass."""

    def __init__(self, ingest: Ingest, fd: int, limits: Limits) -> None:
        self._files: dict[str, tuple[str, int]] = {}
        self._links: dict[str, str] = {}
        limits = limits._replace(entries=min(limits.entries, _MAX_FILES))
        reader = TarReader(decompressed(FileStream(fd)), limits)
        for entry in reader:
            name = os.fsdecode(entry.name)
            if entry.type == FILE:
                if entry.fragments is not None:
                    raise MalformedError(f"{name[:200]!r} is a sparse file")

                def copy(write: Writer) -> None:
                    for _, piece in reader.data():
                        write(bytes(piece))

                digest = f"sha256:{posixpath.basename(name)}"
                named = name.startswith("blobs/sha256/") and digests.is_digest(digest)
                self._files[name] = ingest.add_made(
                    copy, limit=entry.size, digest=digest if named else ""
                )
            elif entry.type in (SYMLINK, LINK):
                target = os.fsdecode(entry.target)
                if entry.type == SYMLINK:
                    target = posixpath.join(posixpath.dirname(name), target)
                self._links[name] = posixpath.normpath(target)

    def has(self, name: str) -> bool:
        return self._links.get(name, name) in self._files

    def take(self, name: str, digest: str = "", size: int = -1) -> tuple[str, int]:
        found = self._files.get(self._links.get(name, name))
        if found is None:
            raise ImageError(f"cannot read {name[:200]!r} of the image: it is missing")
        if digest not in ("", found[0]) or size not in (-1, found[1]):
            raise DigestError(
                f"cannot take in {digest or name[:200]!r}:"
                f" its content is {found[0]}, {found[1]} bytes"
            )
        return found


class _Found(NamedTuple):
    """What goes into the store."""

    entries: list[Entry]
    blobs: set[str]


class _Loader:
    """Reads the documents of an archive and collects what they name."""

    def __init__(self, ingest: Ingest, files: _Files) -> None:
        self._ingest = ingest
        self._files = files
        self._found = _Found([], set())

    # an OCI layout (image-spec image-layout.md)

    def oci(self) -> _Found:
        layout = parse_json(self._document("oci-layout"), "oci-layout")
        if layout.get("imageLayoutVersion") != "1.0.0":
            raise ImageError("cannot read oci-layout: only version 1.0.0 is known")
        index = parse_json(self._document("index.json"), "index.json")
        for item in _items(index, "manifests", "index.json"):
            self._top(item)
        return self._found

    def _top(self, item: dict[str, Any]) -> None:
        """One image of the index, which is under a name or not."""
        annotations = item.get("annotations")
        annotations = annotations if isinstance(annotations, dict) else {}
        if _ATTESTATION in annotations:
            return
        descriptor = self._select(parse_descriptor(item, "index.json"), 0)
        what = f"image {descriptor.digest[:19]}"
        manifest = parse_manifest(self._blob(descriptor), what)
        config = self._blob(manifest.config)
        for layer in manifest.layers:
            self._take(layer)
        self._check(config, manifest.layers, what)
        self._found.entries.append(Entry(_name(annotations), descriptor))

    def _select(self, descriptor: Descriptor, depth: int) -> Descriptor:
        """The manifest itself, or of an index the one for this machine."""
        if descriptor.media_type in MANIFESTS:
            return descriptor
        if descriptor.media_type not in INDEXES or depth == _MAX_NESTING:
            raise ImageError(
                f"cannot use {descriptor.digest}: it is of the unknown media type"
                f" {descriptor.media_type[:100]!r}"
            )
        what = f"index {descriptor.digest[:19]}"
        index = parse_json(self._blob(descriptor), what)
        self._found.blobs.discard(descriptor.digest)
        seen = []
        for item in _items(index, "manifests", what):
            platform = item.get("platform")
            platform = platform if isinstance(platform, dict) else {}
            name = f"{platform.get('os', 'linux')}/{platform.get('architecture', architecture())}"
            if name == f"linux/{architecture()}":
                return self._select(parse_descriptor(item, what), depth + 1)
            seen.append(name[:40])
        raise ImageError(
            f"cannot use {what}: it has no image for linux/{architecture()},"
            f" only for {', '.join(sorted(set(seen))[:20]) or 'nothing'}"
        )

    def _take(self, descriptor: Descriptor) -> None:
        name = f"blobs/sha256/{descriptor.digest[7:]}"
        self._files.take(name, descriptor.digest, descriptor.size)
        self._found.blobs.add(descriptor.digest)

    def _blob(self, descriptor: Descriptor) -> bytes:
        """A document, which is kept."""
        if descriptor.size > MAX_DOCUMENT:
            raise ImageError(f"cannot use {descriptor.digest}: {descriptor.size} bytes of JSON")
        self._take(descriptor)
        return self._read(descriptor.digest)

    # a docker archive (moby image/spec, "Combined Image JSON + Filesystem Changeset Format")

    def docker(self) -> _Found:
        images = parse_any_json(self._document("manifest.json"), "manifest.json")
        for item in _items({"images": images}, "images", "manifest.json"):
            config_name = item.get("Config")
            layer_names, tags = _strings(item, "Layers"), _strings(item, "RepoTags")
            if not isinstance(config_name, str):
                raise ImageError("cannot read manifest.json: an image without Config")
            config = self._document(config_name)
            digest = f"sha256:{posixpath.basename(config_name).removesuffix('.json')}"
            if digests.is_digest(digest) and digests.of_bytes(config) != digest:
                raise DigestError(f"cannot use {config_name!r}: its content is another")
            layers = [self._docker_layer(name) for name in layer_names]
            self._check(config, layers, f"image {digests.of_bytes(config)[:19]}")
            descriptor = add_image(self._ingest, config, layers)
            self._found.blobs.update((descriptor.digest, digests.of_bytes(config)))
            for tag in tags or [""]:
                name = str(references.parse(tag)) if tag else ""
                self._found.entries.append(Entry(name, descriptor))
        return self._found

    def _docker_layer(self, name: str) -> Descriptor:
        digest, size = self._files.take(name)
        self._found.blobs.add(digest)
        fd = self._ingest.open(digest)
        try:
            compressed = isinstance(decompressed(FileStream(fd)), Gunzip)
        finally:
            os.close(fd)
        return Descriptor(f"{OCI_LAYER}+gzip" if compressed else OCI_LAYER, digest, size)

    # both

    def _document(self, name: str) -> bytes:
        """A small file that may be forgotten."""
        digest, size = self._files.take(name)
        if size > MAX_DOCUMENT:
            raise ImageError(f"cannot read {name[:200]!r}: it is larger than {MAX_DOCUMENT} bytes")
        return self._read(digest)

    def _read(self, digest: str) -> bytes:
        with open(self._ingest.open(digest), "rb") as file:
            return file.read(MAX_DOCUMENT)

    def _check(self, data: bytes, layers: Sequence[Descriptor], what: str) -> None:
        """The configuration, and that its layers are what it says as far as that is cheap."""
        config = parse_json(data, f"the configuration of {what}")
        configs.parse(config)
        diff_ids = parse_diff_ids(config, len(layers), f"the configuration of {what}")
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if layer.media_type.endswith("zstd"):
                raise ImageError(
                    f"cannot use {what}: its layers are compressed by zstd",
                    hint="`skopeo copy --dest-compress-format gzip` converts it",
                )
            if layer.media_type.endswith(".tar") and layer.digest != diff_id:
                raise DigestError(f"cannot use {what}: layer {layer.digest} should be {diff_id}")


def _items(document: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
    items = document.get(key)
    if not isinstance(items, list) or len(items) > _MAX_IMAGES:
        raise ImageError(f"cannot read {what}: it is no list of at most {_MAX_IMAGES} images")
    if not all(isinstance(item, dict) for item in items):
        raise ImageError(f"cannot read {what}: an image in it is no object")
    return items


def _strings(item: dict[str, Any], key: str) -> list[str]:
    value = item.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ImageError(f"cannot read manifest.json: {key} is no list of strings")
    return value


def _name(annotations: dict[str, Any]) -> str:
    """The canonical name: containerd's, or OCI's where it is more than a tag."""
    name = annotations.get(_CONTAINERD_NAME)
    if not isinstance(name, str):
        name = annotations.get(REF_NAME)
        if not isinstance(name, str) or not any(mark in name for mark in "/:@"):
            return ""
    return str(references.parse(name))
