"""The driver itself; ``ctr.drivers.StorageDriver`` has the laws."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ctr.errors import NotFoundError
from ctr.idmap import IdMapper
from ctr.models import Mount
from ctr.snapshots import SnapshotStore, check_key
from ctr.copying import copy_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr.drivers import Snapshot
    from ctr.models import SnapshotOptions
    from ctr.snapshots import Record

MOUNT_ATTR_RDONLY = 1  # from linux/mount.h


class ExampleStorage:
    """Implements ctr.drivers.StorageDriver.

    SnapshotStore keeps the books: keys, records, locks, and what a killed process left.  A
    snapshot's folder holds ``fs``, its whole tree.
    """

    def __init__(self, root: str) -> None:
        self._store = SnapshotStore(root)

    def prepare(self, key: str, parent: str | None, options: SnapshotOptions) -> list[Mount]:
        """Copy the parent's tree and return a mount of the copy."""
        check_key(key)
        base = self._store.parent(parent) if parent is not None else None

        def fill(path: str) -> None:
            mapper = IdMapper(options.uid_map, options.gid_map)
            if base is not None:
                copy_tree(self._tree(base), f"{path}/fs", mapper)
            else:
                os.mkdir(f"{path}/fs", 0o755)
                os.chown(f"{path}/fs", *mapper.owner(0, 0, "/"))

        return self._mount(self._store.create(key, "active", base, fill))

    def view(self, key: str, parent: str) -> list[Mount]:
        """Return a read-only mount of a copy of the parent."""
        check_key(key)
        base = self._store.parent(parent)

        def fill(path: str) -> None:
            copy_tree(self._tree(base), f"{path}/fs", IdMapper((), ()))

        return self._mount(self._store.create(key, "view", base, fill))

    def mounts(self, key: str) -> list[Mount]:
        """Return the mounts of an active snapshot or a view again."""
        record = self._store.get(key)
        if record.kind == "committed":
            raise NotFoundError(f"cannot mount snapshot {key!r}: it is committed")
        return self._mount(record)

    def commit(self, name: str, key: str) -> None:
        """Turn an active snapshot into a committed one."""
        self._store.commit(name, key)

    def remove(self, key: str) -> None:
        """Remove a snapshot; one already gone is a success."""
        self._store.remove(key)

    def walk(self) -> Iterator[Snapshot]:
        """Yield every snapshot."""
        return self._store.walk()

    def gc(self, valid: frozenset[str]) -> list[str]:
        """Remove what no key of ``valid`` needs."""
        return self._store.gc(valid)

    def _tree(self, record: Record) -> str:
        return f"{self._store.path(record.folder)}/fs"

    def _mount(self, record: Record) -> list[Mount]:
        attributes = MOUNT_ATTR_RDONLY if record.kind == "view" else 0
        return [Mount("bind", self._tree(record), attributes=attributes)]
