"""The book-keeping of a storage driver that keeps one folder a snapshot.

The keys of all snapshots, their records, locks and crash-safety; what a folder holds is
the driver's.  Below the driver's root::

    lock            flock(2): taken for each change, never for long
    keys/KEY        symbolic link to ../FOLDER
    FOLDER/record   the truth: key, kind, parent, …
    FOLDER/…        the driver's own

A folder's name is six hexadecimal digits, short because overlay on old kernels must name
all layers within one page.  A link counts only when the record that it leads to names its
key: so a snapshot begins to exist when its link is made, a commit happens at the instant
when the record is replaced, and a removal when the link goes.  What a killed process leaves
behind is a folder or a link that does not count; ``gc`` sweeps it.

A folder that is being filled, or copied from, is held by flock(2) on the folder itself.

A key that holds ``@`` is hidden: it is something derived from the snapshot named before the
``@`` (a copy with other ids) and goes with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, NamedTuple

from ctr.drivers import Snapshot
from ctr.errors import ConflictError, InvalidError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-")
_KEY_LENGTH = 128
_FOLDER_BYTES = 3
_HEX = frozenset("0123456789abcdef")


class Record(NamedTuple):
    """One snapshot; ``layers`` (folders) and ``flags`` (words) are the driver's to use."""

    key: str
    kind: str
    parent: str | None
    folder: str
    layers: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()


def check_key(key: str) -> None:
    """Raise InvalidError unless ``key`` is ``[a-zA-Z0-9][a-zA-Z0-9_.:-]*``, at most 128 long."""
    if not key or len(key) > _KEY_LENGTH or not _ALPHABET.issuperset(key) or key[0] in "_.:-":
        raise InvalidError(
            f"cannot use snapshot key {key[: _KEY_LENGTH + 1]!r}: "
            f"it is not [a-zA-Z0-9][a-zA-Z0-9_.:-]* of at most {_KEY_LENGTH} characters"
        )


class SnapshotStore:
    """Snapshots below ``root``, which is made by the first ``create``.

    ``set_up`` is called once with the path of the new root, before anything is in it; it
    may make folders there (not named like six hexadecimal digits), or raise.
    """

    def __init__(self, root: str, set_up: Callable[[str], None] | None = None) -> None:
        self.root = root
        self._set_up = set_up
        self._keys = f"{root}/keys"

    def path(self, folder: str) -> str:
        """The absolute path of a snapshot's folder."""
        return f"{self.root}/{folder}"

    # -- reading --------------------------------------------------------------------------

    def get(self, key: str) -> Record:
        """Return the record of ``key``.  Raises NotFoundError."""
        check_key(key)
        record = self._read(key)
        if record is None:
            raise NotFoundError(f"no snapshot {key!r}")
        return record

    def find(self, key: str) -> Record | None:
        """As ``get``, hidden keys included; None where there is none."""
        return self._read(key)

    def parent(self, key: str) -> Record:
        """Return the record of a committed snapshot.  Raises NotFoundError."""
        record = self.get(key)
        if record.kind != "committed":
            raise NotFoundError(f"no committed snapshot {key!r}: it is {record.kind}")
        return record

    def walk(self) -> Iterator[Snapshot]:
        """Yield every snapshot, hidden ones excluded, in the order of their keys."""
        for record in self._records():
            if "@" not in record.key:
                yield Snapshot(record.key, record.kind, record.parent)

    # -- changing -------------------------------------------------------------------------

    def create(
        self,
        key: str,
        kind: str,
        parent: Record | None,
        fill: Callable[[str], None],
        *,
        layers: tuple[str, ...] = (),
        flags: Iterable[str] = (),
    ) -> Record:
        """Make a folder, let ``fill`` fill it, then give it the key.

        Raises ConflictError when the key is taken and NotFoundError when the parent has
        gone.  Nothing is locked while ``fill`` runs, but parent and folder are kept from
        ``remove`` and ``gc``.  When anything fails the folder goes.
        """
        held: list[int] = []
        try:
            with self._changing():
                self._check_free(key)
                if parent is not None:
                    held.append(self._hold_parent(parent))
                folder = self._new_folder(held)
            path = self.path(folder)
            try:
                fill(path)
                record = Record(key, kind, parent and parent.key, folder, layers, frozenset(flags))
                _write(f"{path}/record", record)
                with self._changing():
                    self._check_free(key)
                    self._link(key, folder)
            except BaseException:
                from ctr.trees import remove_tree

                remove_tree(path)
                raise
        finally:
            for descriptor in held:
                os.close(descriptor)
        return record

    def commit(self, name: str, key: str) -> None:
        """Turn the active ``key`` into the committed ``name``, and what it holds durable.

        Raises ConflictError when ``name`` is taken or ``key`` is not active, NotFoundError.
        """
        check_key(name)
        record = self._committable(name, key)
        path = self.path(record.folder)
        fresh = f"{path}/record.{os.urandom(4).hex()}"
        try:
            _write(fresh, record._replace(key=name, kind="committed"))
            _sync(path)
            with self._changing():
                if self._committable(name, key) != record:
                    raise NotFoundError(f"no snapshot {key!r}: it was replaced meanwhile")
                self._link(name, record.folder)
                os.rename(fresh, f"{path}/record")  # here it happens
                os.unlink(f"{self._keys}/{key}")
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            raise

    def remove(self, key: str) -> None:
        """Remove a snapshot and what is derived from it; one already gone is a success.

        One whose making was broken off leaves a folder without a key: those go then too.
        Raises ConflictError when it has children, made or in the making.
        """
        check_key(key)
        try:
            lock = self._changing(existing=True)
        except FileNotFoundError:
            return
        with lock:
            record = self._read(key)
            if record is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._keys}/{key}")
                folders = self._leftovers({known.folder for known in self._records()})
            else:
                doomed = self._removable(record)
                for victim in doomed:
                    os.unlink(f"{self._keys}/{victim.key}")
                folders = [victim.folder for victim in doomed]
        for folder in folders:
            self._delete(folder)

    def gc(self, valid: frozenset[str]) -> list[str]:
        """Remove every snapshot that no key of ``valid`` is or descends from, and leftovers.

        Return the keys removed, then the names of the leftover folders.
        """
        try:
            lock = self._changing(existing=True)
        except FileNotFoundError:
            return []
        with lock:
            records = {record.key: record for record in self._records()}
            needed: set[str] = set()
            for key, record in records.items():
                used = key in valid or (record.kind == "committed" and self._busy(record.folder))
                while used and key not in needed:
                    needed.add(key)
                    key = (key in records and records[key].parent) or key
            doomed = [record for key, record in records.items() if _owner(key) not in needed]
            # Children before parents: whatever is left of a half-done sweep is whole.
            doomed.sort(key=lambda record: _depth(record, records), reverse=True)
            for record in doomed:
                os.unlink(f"{self._keys}/{record.key}")
            for key in set(os.listdir(self._keys)) - records.keys():
                os.unlink(f"{self._keys}/{key}")
            leftovers = self._leftovers({record.folder for record in records.values()})
        for folder in [record.folder for record in doomed] + leftovers:
            self._delete(folder)
        return [record.key for record in doomed if "@" not in record.key] + leftovers

    # -- inside ---------------------------------------------------------------------------

    def _leftovers(self, known: set[str]) -> list[str]:
        """The folders that no record leads to and nobody is making."""
        return [
            name
            for name in sorted(os.listdir(self.root))
            if _is_folder(name) and name not in known and not self._busy(name)
        ]

    def _read(self, key: str) -> Record | None:
        try:
            with open(f"{self._keys}/{key}/record", encoding="ascii") as file:
                record = _parse(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return record if record is not None and record.key == key else None

    def _records(self) -> list[Record]:
        try:
            keys = sorted(os.listdir(self._keys))
        except FileNotFoundError:
            return []
        return [record for key in keys if (record := self._read(key)) is not None]

    def _check_free(self, key: str) -> None:
        if self._read(key) is not None:
            raise ConflictError(f"cannot make snapshot {key!r}: the key is taken")

    def _committable(self, name: str, key: str) -> Record:
        record = self.get(key)
        if self._read(name) is not None:
            raise ConflictError(f"cannot commit snapshot {key!r}: {name!r} is taken")
        if record.kind != "active":
            raise ConflictError(f"cannot commit snapshot {key!r}: it is {record.kind}")
        return record

    def _removable(self, record: Record) -> list[Record]:
        """The record, after all that is derived from it."""
        if record.kind != "committed":
            return [record]
        family = [other for other in self._records() if _owner(other.key) == record.key]
        for other in self._records():
            if other.parent == record.key and _owner(other.key) != record.key:
                raise ConflictError(
                    f"cannot remove snapshot {record.key!r}: {other.key!r} is made of it"
                )
        if any(self._busy(member.folder) for member in family):
            raise ConflictError(
                f"cannot remove snapshot {record.key!r}: another is being made of it"
            )
        return sorted(family, key=lambda member: member.key, reverse=True)

    def _changing(self, *, existing: bool = False) -> contextlib.ExitStack:
        """Take the lock; make the root first unless it must exist already."""
        stack = contextlib.ExitStack()
        while True:
            try:
                lock = os.open(f"{self.root}/lock", os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                if existing:
                    raise
                self._make_root()
            else:
                break
        stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return stack

    def _make_root(self) -> None:
        """Every step may be repeated, and the lock file comes last."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        if self._set_up is not None:
            self._set_up(self.root)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._keys, 0o700)
        os.close(os.open(f"{self.root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _new_folder(self, held: list[int]) -> str:
        while True:
            folder = os.urandom(_FOLDER_BYTES).hex()
            try:
                os.mkdir(self.path(folder), 0o700)
            except FileExistsError:
                continue
            held.append(self._open(folder))
            fcntl.flock(held[-1], fcntl.LOCK_EX)
            return folder

    def _hold_parent(self, parent: Record) -> int:
        if self._read(parent.key) != parent:
            raise NotFoundError(f"no snapshot {parent.key!r}: it has gone")
        descriptor = self._open(parent.folder)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return descriptor

    def _open(self, folder: str) -> int:
        return os.open(self.path(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _busy(self, folder: str) -> bool:
        """Whether somebody holds the folder."""
        try:
            descriptor = self._open(folder)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _link(self, key: str, folder: str) -> None:
        """Make the link; one that does not count is in the way only until now."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._keys}/{key}")
        os.symlink(f"../{folder}", f"{self._keys}/{key}")

    def _delete(self, folder: str) -> None:
        """Delete a folder that no key leads to, unless somebody is at it already."""
        from ctr.trees import remove_tree

        try:
            descriptor = self._open(folder)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            remove_tree(self.path(folder))
        finally:
            os.close(descriptor)


def _owner(key: str) -> str:
    return key.partition("@")[0]


def _depth(record: Record, records: dict[str, Record]) -> int:
    depth = 0
    parent = record.parent
    while parent is not None and parent in records:
        depth += 1
        parent = records[parent].parent
    return depth


def _is_folder(name: str) -> bool:
    return len(name) == 2 * _FOLDER_BYTES and _HEX.issuperset(name)


def _write(path: str, record: Record) -> None:
    words = (
        record.key,
        record.kind,
        record.parent or "-",
        record.folder,
        ",".join(record.layers),
        ",".join(sorted(record.flags)),
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, ("\n".join(words) + "\n").encode())
    finally:
        os.close(descriptor)


def _parse(text: str) -> Record | None:
    """None for what a crash of the machine has cut short."""
    words = text.split("\n")
    if len(words) != 7:
        return None
    key, kind, parent, folder, layers, flags, _ = words
    return Record(
        key,
        kind,
        None if parent == "-" else parent,
        folder,
        tuple(layers.split(",")) if layers else (),
        frozenset(flags.split(",")) if flags else frozenset(),
    )


def _sync(path: str) -> None:
    """syncfs(2): what a key leads to after a power loss must be all there."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
    finally:
        os.close(descriptor)
