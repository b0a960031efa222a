"""Unpacks images into the committed snapshots of a storage driver, a layer a snapshot.

A snapshot is named by its chain ID, so that images share what they have in common.  It is
made under the key ``unpack-HEX``, and under a lock for that chain ID: of two processes that
need a layer one applies it, the other waits.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from ctr import kernel
from ctr.errors import DigestError, DriverError, ImageError
from ctr.images import digest as digests
from ctr.images.accounts import accounts_path
from ctr.images.files import Lock, make_folder, replace
from ctr.models import SnapshotOptions

if TYPE_CHECKING:
    from ctr.drivers import StorageDriver
    from ctr.images.store import ContentStore, Image, Layer
    from ctr.images.tar import Limits
    from ctr.models import Mount

#: How the keys of half-done snapshots start.
KEY_PREFIX = "unpack-"
MAX_ACCOUNTS = 1 << 20  # bytes of a passwd or group file


def unpack(
    store: ContentStore,
    image: Image,
    driver: StorageDriver,
    driver_name: str,
    *,
    state_root: str,
    limits: Limits | None = None,
) -> str:
    """Unpack what is missing of ``image``; return the top's name, ``image.top``.  Needs root.

    Raises ImageError (DigestError when a layer is not what the image says), StateError,
    DriverError and what the driver raises; then nothing half done is left.
    """
    for folder in ("locks", "accounts"):
        make_folder(os.path.join(state_root, folder))
    # An image without layers is one empty snapshot.
    names = image.chain_ids or (digests.EMPTY,)
    layers: tuple[Layer | None, ...] = image.layers or (None,)
    there = _committed(driver)
    parent = None
    for name, layer in zip(names, layers, strict=True):
        if name not in there:
            with Lock(_lock_path(state_root, driver_name, name)):
                if name not in _committed(driver):
                    _make(store, layer, driver, driver_name, name, parent, state_root, limits)
        parent = name
    if not os.path.exists(accounts_path(state_root, image.top)):
        with Lock(_lock_path(state_root, driver_name, image.top)):
            _read_accounts_again(driver, driver_name, image.top, state_root)
    return image.top


def _committed(driver: StorageDriver) -> set[str]:
    return {snapshot.key for snapshot in driver.walk() if snapshot.kind == "committed"}


def _make(
    store: ContentStore,
    layer: Layer | None,
    driver: StorageDriver,
    driver_name: str,
    name: str,
    parent: str | None,
    state_root: str,
    limits: Limits | None,
) -> None:
    key = KEY_PREFIX + name.removeprefix("sha256:")
    driver.remove(key)  # what a killed process left: its lock is ours now
    try:
        root = _mount(driver.prepare(key, parent, SnapshotOptions()), driver_name)
        try:
            if layer is not None:
                _apply(store, layer, root, limits)
            _save_accounts(root, state_root, name)
        finally:
            os.close(root)
        driver.commit(name, key)
    except BaseException:
        with suppress(Exception):  # the first error is the one to tell
            driver.remove(key)
        raise


def _mount(mounts: list[Mount], driver_name: str) -> int:
    if len(mounts) != 1:
        raise DriverError(
            f"cannot unpack with storage driver {driver_name}: it wants {len(mounts)} mounts"
        )
    try:
        return kernel.mount_detached(mounts[0])
    except OSError as error:
        raise DriverError(
            f"cannot unpack with storage driver {driver_name}:"
            f" mount {mounts[0].type}: {error.strerror}"
        ) from error


def _apply(store: ContentStore, layer: Layer, root: int, limits: Limits | None) -> None:
    from ctr.images.compression import FileStream, decompressed
    from ctr.images.layers import apply

    fd = store.open(layer.digest)
    try:
        name = f"layer {layer.digest[:19]}"
        applied = apply(root, decompressed(FileStream(fd)), limits, name=name)
    except ImageError:
        store.verify(layer.digest)  # a damaged blob is the better explanation
        raise
    finally:
        os.close(fd)
    if applied.diff_id != layer.diff_id:
        raise DigestError(
            f"cannot use {name}: its tar is {applied.diff_id}, the image says {layer.diff_id}"
        )


def _read_accounts_again(
    driver: StorageDriver, driver_name: str, name: str, state_root: str
) -> None:
    """The snapshot outlived its file, or was made by another driver's run that was killed."""
    key = KEY_PREFIX + "accounts-" + name.removeprefix("sha256:")
    driver.remove(key)
    try:
        root = _mount(driver.view(key, name), driver_name)
        try:
            _save_accounts(root, state_root, name)
        finally:
            os.close(root)
    finally:
        driver.remove(key)


def _save_accounts(root: int, state_root: str, name: str) -> None:
    saved = {file: _read_file(root, f"etc/{file}") for file in ("passwd", "group")}
    replace(accounts_path(state_root, name), json.dumps(saved).encode())


def _read_file(root: int, path: str) -> str:
    """A regular file of the tree, each byte a character; empty where there is none."""
    flags = os.O_PATH | os.O_CLOEXEC
    resolve = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
    try:
        handle = kernel.openat2(root, path, flags, resolve=resolve)
    except OSError:
        return ""
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return ""  # opening a device may do something
        if status.st_size > MAX_ACCOUNTS:
            raise ImageError(f"cannot use the image's /{path}: more than {MAX_ACCOUNTS} bytes")
        with open(f"/proc/self/fd/{handle}", "rb") as file:
            return file.read(MAX_ACCOUNTS).decode("latin-1")
    finally:
        os.close(handle)


def _lock_path(state_root: str, driver_name: str, name: str) -> str:
    # 256 files at most: lock files can't be removed safely.
    return os.path.join(state_root, "locks", f"unpack-{driver_name}-{name[7:9]}")
