"""Disk usage by kind of object (``ctr system df``)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ctr.drivers import StorageUsage
from ctr.errors import CtrError

if TYPE_CHECKING:
    from ctr.engine import Engine


class Row(NamedTuple):
    """One kind: how many there are, how many in use; sizes in bytes."""

    type: str
    total: int
    active: int
    size: int
    reclaimable: int


def disk_usage(engine: Engine) -> list[Row]:
    """Images (content store), containers (their own layers), volumes, unpacked layers."""
    containers = engine.containers()
    running = [row for row in containers if row.state in ("running", "paused")]
    images = list(engine.content.images())
    used = {row.spec["image_id"] for row in containers}
    layers, writable = _snapshots(engine, {row.id for row in containers})
    volumes = engine.state.volumes()
    sizes = {
        row.name: tree_size(os.path.join(engine.settings.root, "volumes", row.name))
        for row in volumes
    }
    busy = {row.name for row in volumes if engine.state.volume_users(row.name)}
    idle = sum(writable.get(row.id, 0) for row in containers if row not in running)
    return [
        Row(
            "Images",
            len(images),
            sum(image.id in used for image in images),
            sum(image.size for image in images),
            sum(image.size for image in images if image.id not in used),
        ),
        Row("Containers", len(containers), len(running), sum(writable.values()), idle),
        Row(
            "Local Volumes",
            len(volumes),
            len(busy),
            sum(sizes.values()),
            sum(size for name, size in sizes.items() if name not in busy),
        ),
        Row("Unpacked Layers", len(layers), len(layers), sum(layers.values()), 0),
    ]


def _snapshots(engine: Engine, containers: set[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes of committed snapshots and of containers' own, over all storage drivers in use."""
    layers: dict[str, int] = {}
    writable: dict[str, int] = {}
    for name in engine.host.drivers("storage"):
        if not os.path.isdir(os.path.join(engine.settings.root, "storage", name)):
            continue
        driver = engine.storage(name)
        if not isinstance(driver, StorageUsage):
            continue
        for snapshot in driver.walk():
            try:
                size = driver.usage(snapshot.key).size
            except CtrError:
                continue  # removed meanwhile
            if snapshot.key in containers:
                writable[snapshot.key] = size
            else:
                layers[f"{name}:{snapshot.key}"] = size
    return layers, writable


def tree_size(path: str) -> int:
    """Bytes on disk below ``path``, hard links counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, _, files in os.walk(path):
        for name in (*files, ""):
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def human(size: float) -> str:
    """Bytes as docker writes them: powers of 1000, four significant digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.4g}{unit}"
        size /= 1000
    raise AssertionError
