"""Puts layers that are in a transaction together to an image."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ctr.images.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor
from ctr.images.store import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.images.ingest import Ingest

#: GOARCH, which OCI uses, by the kernel's name for a machine.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "i686": "386",
    "aarch64": "arm64",
    "armv7l": "arm",
    "loongarch64": "loong64",
}


def architecture() -> str:
    """This machine's architecture, in OCI's words."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def add_image(
    ingest: Ingest, config: dict[str, Any] | bytes, layers: Sequence[Descriptor]
) -> Descriptor:
    """Add configuration and manifest; return the manifest's descriptor.

    ``config`` as bytes keeps the ID that an image came with.
    """
    data = config if isinstance(config, bytes) else _canonical(config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, *ingest.add(data)).to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return Descriptor(OCI_MANIFEST, *ingest.add(_canonical(manifest)))


def publish(
    ingest: Ingest,
    config: dict[str, Any] | bytes,
    layers: Sequence[Descriptor],
    names: Sequence[str],
) -> None:
    """``add_image``, and commit it under each of the canonical ``names``, or under none."""
    descriptor = add_image(ingest, config, layers)
    ingest.commit([Entry(name, descriptor) for name in names or ("",)])


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
