"""Storage driver ``vfs``: the reference for the laws, and the way out where nothing else works.

A snapshot's folder holds ``fs``, the whole tree.  A view has no tree of its own: it is a
read-only mount of its parent's, whose folder is the record's only layer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ctr.errors import NotFoundError
from ctr.models import Mount
from ctr.snapshots import Record, SnapshotStore, check_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr.drivers import Snapshot
    from ctr.models import SnapshotOptions, Usage

MOUNT_ATTR_RDONLY = 1  # from linux/mount.h


class VfsStorage:
    """Implements ctr.drivers.StorageDriver and StorageUsage."""

    def __init__(self, root: str) -> None:
        self._store = SnapshotStore(root)

    def prepare(self, key: str, parent: str | None, options: SnapshotOptions) -> list[Mount]:
        check_key(key)
        base = self._store.parent(parent) if parent is not None else None

        def fill(path: str) -> None:
            from ctr.copying import copy_tree
            from ctr.idmap import IdMapper

            mapper = IdMapper(options.uid_map, options.gid_map)
            tree = f"{path}/fs"
            if base is not None:
                copy_tree(f"{self._store.path(base.folder)}/fs", tree, mapper)
            else:
                os.mkdir(tree)
                os.chmod(tree, 0o755)
                os.chown(tree, *mapper.owner(0, 0, "/"))

        return self._mount(self._store.create(key, "active", base, fill))

    def view(self, key: str, parent: str) -> list[Mount]:
        check_key(key)
        base = self._store.parent(parent)
        record = self._store.create(key, "view", base, lambda path: None, layers=(base.folder,))
        return self._mount(record)

    def mounts(self, key: str) -> list[Mount]:
        record = self._store.get(key)
        if record.kind == "committed":
            raise NotFoundError(
                f"no active snapshot or view {key!r}: it is committed", hint="make a view of it"
            )
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
        if record.kind == "view":
            folder, attributes = record.layers[0], MOUNT_ATTR_RDONLY
        else:
            folder, attributes = record.folder, 0
        return [Mount("bind", f"{self._store.path(folder)}/fs", attributes=attributes)]
