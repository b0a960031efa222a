"""Volumes: named folders that outlive containers, and what a container's mounts resolve to."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ctr.errors import ConflictError, InvalidError, NotFoundError, StateError
from ctr.state import VolumeRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.models import Mount
    from ctr.mountspec import MountSpec
    from ctr.state import State


def data_folder(state: State, name: str) -> str:
    """Where a volume's content lies."""
    return os.path.join(state.root, "volumes", name, "_data")


def create(state: State, name: str, labels: dict[str, str], *, anonymous: bool = False) -> None:
    """Make a volume; one that exists is left as it is (docker's rule)."""
    folder = data_folder(state, name)
    # The folder first: a volume on record always has one, a folder without record is swept.
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o755)
    except OSError as error:
        raise StateError(f"cannot create volume {name}: {error.strerror}") from error
    state.add_volume(VolumeRow(name, time.time_ns(), labels, anonymous))


def remove(state: State, name: str, *, force: bool = False) -> None:
    """Remove a volume and its content.

    Raises ConflictError while a container uses it, NotFoundError unless ``force``.
    """
    import shutil

    users = state.volume_users(name)
    if users:
        raise ConflictError(
            f"cannot remove volume {name}: it is in use by {', '.join(u[:12] for u in users)}",
            hint="remove the containers first",
        )
    if not force and not any(row.name == name for row in state.volumes()):
        raise NotFoundError(f"cannot remove volume {name}: no such volume")
    folder = os.path.dirname(data_folder(state, name))
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.exists(folder):
        raise StateError(f"cannot remove volume {name}: {folder} can't be removed")
    state.drop_volume(name)


def resolve(state: State, mount: MountSpec, container: str) -> str:
    """The host path behind one of a container's mounts ('' for tmpfs); makes what it needs."""
    if mount.kind == "tmpfs":
        return ""
    if mount.kind == "volume":
        state.use_volume(mount.source, container)
        create(state, mount.source, {}, anonymous=mount.anonymous)
        return data_folder(state, mount.source)
    if not os.path.lexists(mount.source):
        if not mount.create:
            raise InvalidError(
                f"cannot mount {mount.source}: bind source path does not exist",
                hint="make it, or use -v, which makes a missing folder",
            )
        try:
            os.makedirs(mount.source, mode=0o755, exist_ok=True)
        except OSError as error:
            raise InvalidError(f"cannot mount {mount.source}: {error.strerror}") from error
    return os.path.realpath(mount.source)


def copy_up(root: Sequence[Mount], mounts: Sequence[MountSpec], sources: Sequence[str]) -> None:
    """Give each empty volume what the image has at its target, owner and mode included.

    The tree is read through its own detached mount and the target is resolved in it, so
    that no link of the image leads out.
    """
    import tempfile

    from ctr import kernel
    from ctr.images import build_layer, layers

    (mount,) = root
    descriptor = kernel.mount_detached(mount)
    try:
        for spec, source in zip(mounts, sources, strict=True):
            if spec.kind != "volume" or not spec.copy or os.listdir(source):
                continue
            try:
                folder = kernel.openat2(
                    descriptor,
                    spec.target.lstrip("/"),
                    os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
                    resolve=kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS,
                )
            except OSError:
                continue  # the image has nothing there
            into = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with tempfile.TemporaryFile(dir=os.path.dirname(source)) as archive:
                    build_layer.write_layer(build_layer.folder_members(folder), archive.write)
                    archive.seek(0)
                    layers.apply(into, archive, name=f"the image's {spec.target}")
            finally:
                os.close(folder)
                os.close(into)
    finally:
        os.close(descriptor)


def prune(state: State, *, everything: bool) -> list[str]:
    """Remove volumes that no container uses; only anonymous ones unless ``everything``."""
    removed = []
    for row in state.volumes():
        if (everything or row.anonymous) and not state.volume_users(row.name):
            remove(state, row.name)
            removed.append(row.name)
    return removed
