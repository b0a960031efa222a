"""Storage driver ``overlay``.

A snapshot's folder holds ``fs``, the upper layer, and ``work``, which overlayfs wants
beside it.  A record's ``layers`` are the folders below it, newest first, so that preparing
reads one record however many layers there are.  Flags: ``metacopy`` (see mounting) and
``volatile``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ctr.errors import ConflictError, NotFoundError, StateError
from ctr.snapshots import Record, SnapshotStore, check_key
from ctr_storage_overlay.mounting import EMPTY, appends_layers, overlay_mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr.drivers import Snapshot
    from ctr.models import Mount, SnapshotOptions, Usage


class OverlayStorage:
    """Implements ctr.drivers.StorageDriver and StorageUsage."""

    def __init__(self, root: str, *, metacopy: bool = False, release: str = "") -> None:
        self._store = SnapshotStore(root, _set_up)
        self._metacopy = metacopy
        self._appending = appends_layers(release or os.uname().release)

    def prepare(self, key: str, parent: str | None, options: SnapshotOptions) -> list[Mount]:
        check_key(key)
        base = self._store.parent(parent) if parent is not None else None
        layers = _layers(base)
        owner = (0, 0)
        flags = set(base.flags & {"metacopy"}) if base is not None else set()
        if self._metacopy:
            flags.add("metacopy")
        if options.volatile:
            flags |= {"volatile", _boot_flag()}
        if options.uid_map or options.gid_map:
            if base is not None:
                remapped = self._remapped(base, options)
                layers = _layers(remapped)
                flags |= remapped.flags
            else:
                owner = _root_owner(options)
        # Too many layers must be refused before anything is made; any folder's name will do.
        self._mount(Record(key, "active", parent, "000000", layers, frozenset(flags)))

        def fill(path: str) -> None:
            top = self._store.path(layers[0]) + "/fs" if layers else ""
            _make_upper(path, top, owner)

        record = self._store.create(key, "active", base, fill, layers=layers, flags=flags)
        return self._mount(record)

    def view(self, key: str, parent: str) -> list[Mount]:
        check_key(key)
        base = self._store.parent(parent)
        record = self._store.create(
            key,
            "view",
            base,
            lambda path: None,
            layers=_layers(base),
            flags=base.flags & {"metacopy"},
        )
        return self._mount(record)

    def mounts(self, key: str) -> list[Mount]:
        record = self._store.get(key)
        if record.kind == "committed":
            raise NotFoundError(
                f"no active snapshot or view {key!r}: it is committed", hint="make a view of it"
            )
        if "volatile" in record.flags:
            self._forget_volatile(record)
        return self._mount(record)

    def commit(self, name: str, key: str) -> None:
        self._store.commit(name, key)

    def remove(self, key: str) -> None:
        self._store.remove(key)

    def walk(self) -> Iterator[Snapshot]:
        return self._store.walk()

    def gc(self, valid: frozenset[str]) -> list[str]:
        return self._store.gc(valid)

    def usage(self, key: str) -> Usage:
        from ctr.models import Usage
        from ctr.trees import tree_usage

        record = self._store.get(key)
        if record.kind == "view":
            return Usage(0, 0)
        return tree_usage(self._store.path(record.folder) + "/fs")

    def _mount(self, record: Record) -> list[Mount]:
        return [
            overlay_mount(
                self._store.root,
                record.layers,
                None if record.kind == "view" else record.folder,
                appending=self._appending,
                metacopy="metacopy" in record.flags,
                volatile="volatile" in record.flags,
            )
        ]

    def _remapped(self, base: Record, options: SnapshotOptions) -> Record:
        """The layer over ``base`` in which every file has the outside ids; made once."""
        from ctr_storage_overlay.remap import map_key, remap

        key = map_key(base.key, options)
        record = self._store.find(key)
        if record is not None:
            return record
        layers = _layers(base)

        def fill(path: str) -> None:
            _make_upper(path, self._store.path(layers[0]) + "/fs")
            folder = os.path.basename(path)
            mount = overlay_mount(
                self._store.root, layers, folder, appending=self._appending, metacopy=True
            )
            remap(mount, options)

        try:
            return self._store.create(
                key, "committed", base, fill, layers=layers, flags={"metacopy"}
            )
        except ConflictError:  # another process was faster
            record = self._store.find(key)
            if record is None:
                raise
            return record

    def _forget_volatile(self, record: Record) -> None:
        """Let a volatile snapshot be mounted a second time.

        overlayfs refuses it, since it can't know whether the machine crashed in between
        (overlayfs.rst, "Volatile mount"); the boot id knows.
        """
        if _boot_flag() not in record.flags:
            raise StateError(
                f"cannot mount snapshot {record.key!r}: it was volatile and the machine restarted"
            )
        from ctr.trees import remove_tree

        remove_tree(self._store.path(record.folder) + "/work/work/incompat")


def _set_up(root: str) -> None:
    from ctr_storage_overlay.probe import check_file_system

    check_file_system(root)
    for name in (EMPTY, "merged"):
        os.makedirs(f"{root}/{name}", mode=0o700, exist_ok=True)
    os.chmod(f"{root}/{EMPTY}", 0o755)


def _layers(record: Record | None) -> tuple[str, ...]:
    return (record.folder, *record.layers) if record is not None else ()


def _make_upper(path: str, top: str, owner: tuple[int, int] = (0, 0)) -> None:
    """Make ``fs`` and ``work``.

    The merged root shows the upper folder's attributes: those of ``top``, or ``owner``'s.
    """
    upper = f"{path}/fs"
    os.mkdir(f"{path}/work", 0o700)
    os.mkdir(upper)
    if not top:
        os.chmod(upper, 0o755)
        os.chown(upper, *owner)
        return
    status = os.stat(top)
    os.chown(upper, status.st_uid, status.st_gid)
    os.chmod(upper, status.st_mode & 0o7777)
    for name in os.listxattr(top):
        if not name.startswith("trusted.overlay."):
            os.setxattr(upper, name, os.getxattr(top, name))
    os.utime(upper, ns=(status.st_atime_ns, status.st_mtime_ns))


def _root_owner(options: SnapshotOptions) -> tuple[int, int]:
    from ctr.idmap import IdMapper

    return IdMapper(options.uid_map, options.gid_map).owner(0, 0, "/")


def _boot_flag() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return "boot-" + file.read().strip()
