"""OCI and docker documents: descriptors, manifests and indexes, read as hostile input.

Sources: image-spec descriptor.md, manifest.md, image-index.md, layer.md; docker's
"Image Manifest Version 2, Schema 2".
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ctr.errors import ImageError
from ctr.images import digest as digests

MAX_DOCUMENT = 4 << 20  # bytes; registries refuse larger manifests too
MAX_LAYERS = 512

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
INDEXES = frozenset((OCI_INDEX, DOCKER_INDEX))
_CONFIGS = frozenset((OCI_CONFIG, DOCKER_CONFIG))
_LAYERS = frozenset(
    (
        OCI_LAYER,
        f"{OCI_LAYER}+gzip",
        f"{OCI_LAYER}+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    )
)


class Descriptor(NamedTuple):
    """What a document says about a blob; ``size`` in bytes."""

    media_type: str
    digest: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """The descriptor as OCI writes it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class Manifest(NamedTuple):
    """The blobs of one image, lowest layer first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


def parse_any_json(data: bytes, what: str) -> Any:
    """Parse JSON of at most 4 MiB.  Raises ImageError, which calls the document ``what``."""
    if len(data) > MAX_DOCUMENT:
        raise ImageError(f"cannot read {what}: it is larger than {MAX_DOCUMENT} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"cannot read {what}: it is not JSON ({error})") from None


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """``parse_any_json`` for an object."""
    document = parse_any_json(data, what)
    if not isinstance(document, dict):
        raise ImageError(f"cannot read {what}: it is not a JSON object")
    return document


def parse_descriptor(value: object, what: str) -> Descriptor:
    """Parse a descriptor.  Raises ImageError."""
    if not isinstance(value, dict):
        raise ImageError(f"cannot read {what}: a descriptor is not an object")
    media_type, digest, size = (value.get(key) for key in ("mediaType", "digest", "size"))
    if not isinstance(media_type, str):
        raise ImageError(f"cannot read {what}: a descriptor lacks its media type")
    if not digests.is_digest(digest):
        raise ImageError(f"cannot read {what}: {str(digest)[:100]!r} is not a SHA-256 digest")
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise ImageError(f"cannot read {what}: the size of {digest} is not a size")
    return Descriptor(media_type, digest, size)


def parse_manifest(data: bytes, what: str) -> Manifest:
    """Parse an image manifest.  Raises ImageError, also for media types not known here."""
    document = parse_json(data, what)
    media_type = document.get("mediaType", OCI_MANIFEST)
    if document.get("schemaVersion") != 2 or media_type not in MANIFESTS:
        raise ImageError(
            f"cannot read {what}: it is not an image manifest but {str(media_type)[:100]!r}"
        )
    config = parse_descriptor(document.get("config"), what)
    if config.media_type not in _CONFIGS:
        raise ImageError(
            f"cannot use {what}: its configuration is of the unknown media type"
            f" {config.media_type[:100]!r}",
            hint="it is probably an artifact, not the image of a container",
        )
    layers = document.get("layers")
    if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise ImageError(f"cannot read {what}: it needs a list of at most {MAX_LAYERS} layers")
    parsed = tuple(parse_descriptor(layer, what) for layer in layers)
    for layer in parsed:
        if layer.media_type not in _LAYERS:
            raise ImageError(
                f"cannot use {what}: layer {layer.digest} is of the unknown media type"
                f" {layer.media_type[:100]!r}"
            )
    return Manifest(config, parsed)


def parse_diff_ids(config: dict[str, Any], count: int, what: str) -> tuple[str, ...]:
    """The digests of the ``count`` uncompressed layers.  Raises ImageError."""
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None and count == 0:
        return ()
    if not isinstance(diff_ids, list) or not all(map(digests.is_digest, diff_ids)):
        raise ImageError(f"cannot read {what}: rootfs.diff_ids is not a list of SHA-256 digests")
    if len(diff_ids) != count:
        raise ImageError(f"cannot read {what}: {count} layers, but {len(diff_ids)} rootfs.diff_ids")
    return tuple(diff_ids)
