"""The content store: images by name and digest, in an OCI image layout.

::

    <root>/                0700
      oci-layout           {"imageLayoutVersion": "1.0.0"}
      index.json           one descriptor a name
      blobs/sha256/HEX     manifests, configurations, layers: 0600, never changed
      ingest/              blobs on their way in (ctr.images.ingest)
      index.lock           flock: held while the index or the set of blobs changes

``index.json`` gives each descriptor the annotation ``org.opencontainers.image.ref.name``
with the canonical name, which is therefore unique; an image without a name lacks it.
Other tools address an image as ``skopeo inspect oci:ROOT:docker.io/library/base:latest``.

Readers take no lock: files appear and change by rename(2) only.  Documents are checked
against their digest each time they are read, layers when they come in and when they are
unpacked.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr.errors import (
    ConflictError,
    CtrError,
    DigestError,
    ImageError,
    InvalidError,
    NotFoundError,
    StateError,
)
from ctr.images import digest as digests
from ctr.images import reference as references
from ctr.images.files import Lock, make_folder, replace
from ctr.images.manifest import (
    MAX_DOCUMENT,
    OCI_INDEX,
    Descriptor,
    parse_descriptor,
    parse_diff_ids,
    parse_json,
    parse_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ctr.images.ingest import Ingest
    from ctr.images.reference import Reference

REF_NAME = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'
_CHUNK = 1 << 20
_ID_PREFIX = 4  # hexadecimal digits that an abbreviated image ID has at least


class Layer(NamedTuple):
    """One layer: ``digest`` and ``size`` (bytes) of the blob, ``diff_id`` of its tar."""

    digest: str
    diff_id: str
    size: int
    media_type: str


class Image(NamedTuple):
    """An image whose documents were read and checked against their digests.

    ``reference`` is the canonical name, empty where there is none; ``id`` the digest of the
    configuration ``config``, whose values are as hostile as its maker
    (``ctr.images.config.parse`` checks them); layers and chain IDs lowest first.
    """

    reference: str
    id: str
    manifest_digest: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    chain_ids: tuple[str, ...]

    @property
    def top(self) -> str:
        """The key of the committed snapshot that holds the whole tree."""
        return self.chain_ids[-1] if self.chain_ids else digests.EMPTY

    @property
    def size(self) -> int:
        """Bytes of all layers' blobs."""
        return sum(layer.size for layer in self.layers)


class Entry(NamedTuple):
    """A line of the index: a manifest under a canonical name, or under none ("")."""

    reference: str
    manifest: Descriptor


class Removed(NamedTuple):
    """What ``remove`` took: the names, and the manifest's digest if nothing names it now."""

    references: tuple[str, ...]
    manifest_digest: str


class ContentStore:
    """The images below ``root``; an absolute path that need not exist yet."""

    def __init__(self, root: str) -> None:
        self.root = root

    # reading

    def resolve(self, reference: str) -> Image:
        """Return the image named ``reference``, or whose ID it abbreviates unambiguously.

        An ID is ``sha256:HEX`` or at least four hexadecimal digits.  Raises NotFoundError,
        InvalidError (no such name can exist, or an ambiguous ID), ImageError and StateError
        (the store is damaged).
        """
        return self.image(self._find(reference))

    def entries(self) -> list[Entry]:
        """Every line of the index, named and nameless.  Raises StateError."""
        try:
            return [_entry(item) for item in self._index()["manifests"]]
        except ImageError as error:
            raise StateError(error.message) from error

    def images(self) -> list[Image]:
        """Every image, once for each of its names.  Raises as ``resolve`` does."""
        return [self.image(entry) for entry in self.entries()]

    def image(self, entry: Entry) -> Image:
        """Read the documents of an entry.  Raises ImageError and StateError."""
        what = f"image {label(entry)}"
        try:
            return self._image(entry, what)
        except CtrError as error:
            error.hint = error.hint or f"`ctr image rm {label(entry)}` and bring it in again"
            raise

    def _image(self, entry: Entry, what: str) -> Image:
        manifest = parse_manifest(self.read(entry.manifest.digest), what)
        config = parse_json(self.read(manifest.config.digest), f"the configuration of {what}")
        diff_ids = parse_diff_ids(config, len(manifest.layers), f"the configuration of {what}")
        layers = tuple(
            Layer(layer.digest, diff_id, layer.size, layer.media_type)
            for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
        )
        return Image(
            entry.reference,
            manifest.config.digest,
            entry.manifest.digest,
            config,
            layers,
            digests.chain_ids(diff_ids),
        )

    def path(self, digest: str) -> str:
        """Where the blob is, or would be."""
        if not digests.is_digest(digest):
            raise InvalidError(f"cannot look up {digest[:100]!r}: it is not a SHA-256 digest")
        return os.path.join(self.root, "blobs", "sha256", digest[7:])

    def open(self, digest: str) -> int:
        """Open a blob for reading; return the descriptor.  The content is not checked."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise StateError(f"cannot read blob {digest}: {error.strerror}") from error

    def read(self, digest: str) -> bytes:
        """Read a document of at most 4 MiB.  Raises DigestError, ImageError, StateError."""
        fd = self.open(digest)
        try:
            size = os.fstat(fd).st_size
            if size > MAX_DOCUMENT:
                raise ImageError(f"cannot read blob {digest}: {size} bytes are no document")
            data = os.read(fd, size + 1)
        finally:
            os.close(fd)
        if digests.of_bytes(data) != digest:
            raise DigestError(f"cannot read blob {digest}: its content is another")
        return data

    def verify(self, digest: str) -> None:
        """Read a blob of any size through and check it.  Raises DigestError and StateError."""
        found = digests.hasher()
        fd = self.open(digest)
        try:
            while chunk := os.read(fd, _CHUNK):
                found.update(chunk)
        finally:
            os.close(fd)
        if found.hexdigest() != digest[7:]:
            raise DigestError(f"cannot use blob {digest}: its content is another")

    def _find(self, reference: str) -> Entry:
        entries = self.entries()
        try:
            parsed = references.parse(reference)
        except InvalidError:
            if not _hex_prefix(reference):
                raise
        else:
            found = _named(entries, parsed)
            if found:
                return found
        found = self._by_id(entries, _hex_prefix(reference))
        if found:
            return found
        raise NotFoundError(
            f"cannot find image {reference!r}",
            hint="`ctr image ls` lists the images, `ctr image load` and `ctr image import`"
            " bring one in",
        )

    def _by_id(self, entries: list[Entry], prefix: str) -> Entry | None:
        """The first entry of the only image whose ID starts with ``prefix``."""
        matches: dict[str, Entry] = {}
        for entry in entries if prefix else ():
            try:
                config = parse_manifest(self.read(entry.manifest.digest), "an image").config
            except CtrError:
                continue  # a damaged image can't be asked for by its ID
            if config.digest[7:].startswith(prefix):
                matches.setdefault(config.digest, entry)
        if len(matches) > 1:
            raise InvalidError(
                f"cannot choose an image by {prefix!r}: it is ambiguous",
                hint="give more digits of the ID",
            )
        return next(iter(matches.values()), None)

    def _index(self) -> dict[str, Any]:
        path = os.path.join(self.root, "index.json")
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        except OSError as error:
            raise StateError(f"cannot read {path}: {error.strerror}") from error
        try:
            index: dict[str, Any] = json.loads(data)
            if not isinstance(index["manifests"], list):
                raise TypeError
        except (ValueError, LookupError, TypeError) as error:
            raise StateError(f"cannot read {path}: it is damaged") from error
        return index

    # changing

    def ingest(self) -> Ingest:
        """Open a transaction that brings blobs and names in."""
        from ctr.images.ingest import Ingest

        self.make_folders()
        return Ingest(self)

    def tag(self, source: str, target: Reference) -> None:
        """Give the image ``source`` one more name.  Raises as ``resolve`` does."""
        manifest = self._find(source).manifest
        self.change(lambda entries: put(entries, Entry(str(target), manifest)))

    def remove(self, reference: str, *, force: bool = False) -> Removed:
        """Remove a name, or by its ID an image with all its names.

        The blobs stay until ``gc``.  Raises as ``resolve`` does, and ConflictError for an ID
        with more than one name unless forced.
        """
        found = self._find(reference)
        by_id = not _is_named(found, reference)
        removed: list[Entry] = []

        def without(entries: list[Entry]) -> list[Entry]:
            removed[:] = [
                entry
                for entry in entries
                if entry == found or (by_id and entry.manifest.digest == found.manifest.digest)
            ]
            if len(removed) > 1 and not force:
                raise ConflictError(
                    f"cannot remove image {reference!r}: it has more than one name",
                    hint="remove it by its names, or use --force",
                )
            return [entry for entry in entries if entry not in removed]

        left = self.change(without)
        gone = all(entry.manifest.digest != found.manifest.digest for entry in left)
        names = tuple(entry.reference for entry in removed if entry.reference)
        return Removed(names, found.manifest.digest if gone else "")

    def gc(self, leases: Iterable[str] = ()) -> list[str]:
        """Remove the blobs that no index entry and no lease needs; return their digests.

        A lease is the digest of a blob; a manifest keeps its configuration and layers too.
        What an ``Ingest`` holds is not touched, what one left behind when it died is.
        """
        from ctr.images.gc import collect

        return collect(self, leases) if os.path.isdir(self.root) else []

    def change(self, edit: Callable[[list[Entry]], list[Entry]]) -> list[Entry]:
        """Replace the index by what ``edit`` makes of its entries, under the lock."""
        self.make_folders()
        with Lock(os.path.join(self.root, "index.lock")):
            return self.change_locked(edit)

    def change_locked(self, edit: Callable[[list[Entry]], list[Entry]]) -> list[Entry]:
        """``change`` for a caller that holds the lock."""
        index = self._index()
        known = dict(zip(self.entries(), index["manifests"], strict=True))
        entries = edit(list(known))
        index["manifests"] = [known.get(entry) or _item(entry) for entry in entries]
        replace(os.path.join(self.root, "index.json"), json.dumps(index, indent=1).encode())
        return entries

    def make_folders(self) -> None:
        """Make the layout where it is missing.  Raises StateError."""
        layout = os.path.join(self.root, "oci-layout")
        if os.path.exists(layout):
            return
        try:
            for folder in ("blobs/sha256", "ingest"):
                make_folder(os.path.join(self.root, folder))
            replace(layout, _LAYOUT)
        except OSError as error:
            raise StateError(f"cannot make {self.root}: {error.strerror}") from error


def label(found: Entry | Image) -> str:
    """How an image is told to people: its familiar name, else its (manifest's) digest."""
    if found.reference:
        return references.parse(found.reference).familiar()
    return found.id if isinstance(found, Image) else found.manifest.digest


def put(entries: list[Entry], new: Entry) -> list[Entry]:
    """The entries with ``new`` among them; an image that loses its only name stays nameless."""
    if not new.reference and any(entry.manifest.digest == new.manifest.digest for entry in entries):
        return entries
    kept: list[Entry] = []
    displaced: list[Entry] = []
    for entry in entries:
        if new.reference and entry.reference == new.reference:
            displaced.append(entry._replace(reference=""))
        elif entry.reference or entry.manifest.digest != new.manifest.digest:
            kept.append(entry)
    kept.append(new)
    for entry in displaced:
        if all(other.manifest.digest != entry.manifest.digest for other in kept):
            kept.append(entry)
    return kept


def _entry(item: object) -> Entry:
    descriptor = parse_descriptor(item, "the index of images")
    annotations = item.get("annotations") if isinstance(item, dict) else None
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    try:
        return Entry(str(references.parse(name)) if isinstance(name, str) else "", descriptor)
    except InvalidError:
        return Entry("", descriptor)  # another tool's annotation


def _item(entry: Entry) -> dict[str, Any]:
    item = entry.manifest.to_json()
    if entry.reference:
        item["annotations"] = {REF_NAME: entry.reference}
    return item


def _named(entries: list[Entry], wanted: Reference) -> Entry | None:
    canonical = str(wanted)
    for entry in entries:
        if entry.reference == canonical:
            return entry
    for entry in entries:
        if wanted.digest == entry.manifest.digest and entry.reference:
            found = references.parse(entry.reference)
            if found.name == wanted.name and wanted.tag in ("", found.tag):
                return entry
    return None


def _is_named(entry: Entry, reference: str) -> bool:
    try:
        return _named([entry], references.parse(reference)) is not None
    except InvalidError:
        return False


def _hex_prefix(text: str) -> str:
    """The digits of an image ID or its abbreviation; empty for anything else."""
    digits = text.removeprefix("sha256:")
    is_hex = _ID_PREFIX <= len(digits) <= 64 and not digits.strip("0123456789abcdef")
    return digits if is_hex else ""
