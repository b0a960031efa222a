"""What ctr knows: a SQLite database for what must be unique or listed, and the folders.

::

    <root>/            0700
      ctr.db           containers, volumes, networks, addresses (WAL)
      journal/ held/   one file a container (ctr.journal)
      containers/ID/   files of one container: hosts, hostname, resolv.conf
      content/         images (an OCI layout)     accounts/  passwd and group of unpacked images
      volumes/NAME/_data
      storage/DRIVER/  network/DRIVER/  cgroup/DRIVER/        each the driver's own
    <run_root>/        0700, gone after a reboot
      containers/ID/   lock, status (ctr.launcher.protocol)
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr.errors import ConflictError, NotFoundError, PrivilegeError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA_VERSION = 1

_SCHEMA = """
create table containers (
    id text primary key, name text not null unique, state text not null,
    created_ns integer not null, image text not null, spec text not null,
    pid integer not null default 0, exit_code integer not null default 0,
    oom integer not null default 0, started_ns integer not null default 0,
    finished_ns integer not null default 0, error text not null default '');
create table volumes (
    name text primary key, created_ns integer not null, labels text not null,
    anonymous integer not null);
create table volume_users (
    volume text not null, container text not null, primary key (volume, container));
create table networks (name text primary key, record text not null);
create table addresses (
    network text not null, address text not null, container text not null,
    primary key (network, address));
create table meta (key text primary key, value text not null);
"""

_ROOT_FOLDERS = ("journal", "held", "containers", "volumes", "locks", "content")


class ContainerRow(NamedTuple):
    """A container as recorded; times are nanoseconds since the epoch, 0 for never."""

    id: str
    name: str
    state: str
    created_ns: int
    image: str
    spec: dict[str, Any]
    pid: int
    exit_code: int
    oom: bool
    started_ns: int
    finished_ns: int
    error: str


class VolumeRow(NamedTuple):
    """A volume as recorded."""

    name: str
    created_ns: int
    labels: dict[str, str]
    anonymous: bool


class State:
    """The database and the folders below ``root`` and ``run_root``, made when missing.

    Many processes may use one root at once.  Raises PrivilegeError or StateError when the
    folders can't be made or the database can't be opened.
    """

    def __init__(self, root: str, run_root: str) -> None:
        self.root = root
        self.run_root = run_root
        path = os.path.join(root, "ctr.db")
        try:
            if not os.path.exists(path) or not os.path.isdir(os.path.join(run_root, "containers")):
                self._make_folders()
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.executescript("pragma synchronous = normal; pragma wal_autocheckpoint = 200")
            (version,) = self._db.execute("pragma user_version").fetchone()
            if version == 0:
                self._make_schema()
            elif version != SCHEMA_VERSION:
                raise StateError(
                    f"cannot use {path}: its schema is version {version}, "
                    f"this is version {SCHEMA_VERSION}",
                    hint="use the version of ctr that made it, or another --root",
                )
        except PermissionError as error:
            raise PrivilegeError(
                f"cannot open {error.filename or path}: {error.strerror}",
                hint="run ctr as root, or choose --root and --run-root that you may write to",
            ) from error
        except OSError as error:
            raise StateError(
                f"cannot open {error.filename or path}: {error.strerror}",
                hint="choose a writable --root and --run-root",
            ) from error
        except sqlite3.Error as error:
            raise StateError(f"cannot open {path}: {error}") from error

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _make_folders(self) -> None:
        for folder in (self.root, self.run_root):
            if not os.path.isdir(folder):
                os.makedirs(os.path.dirname(os.path.abspath(folder)), mode=0o755, exist_ok=True)
                _mkdir(folder)
        for name in _ROOT_FOLDERS:
            _mkdir(os.path.join(self.root, name))
        _mkdir(os.path.join(self.run_root, "containers"))

    def _make_schema(self) -> None:
        with self.lock("schema"):
            if self._db.execute("pragma user_version").fetchone() == (0,):
                self._db.execute("pragma journal_mode = wal")
                self._db.executescript(
                    f"begin;{_SCHEMA}pragma user_version = {SCHEMA_VERSION};commit;"
                )

    @contextmanager
    def lock(self, name: str, *, shared: bool = False) -> Iterator[None]:
        """Hold the lock ``name`` below ``locks``; a process that dies lets go of it."""
        path = os.path.join(self.root, "locks", name)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # -- containers -----------------------------------------------------------------------

    def add_container(
        self, container: str, name: str, state: str, created_ns: int, image: str, spec: object
    ) -> None:
        """Record a container.  Raises ConflictError naming the holder when the name is taken."""
        try:
            self._db.execute(
                "insert into containers (id, name, state, created_ns, image, spec)"
                " values (?, ?, ?, ?, ?, ?)",
                (container, name, state, created_ns, image, json.dumps(spec)),
            )
        except sqlite3.IntegrityError:
            (holder,) = self._db.execute(
                "select id from containers where name = ?", (name,)
            ).fetchone() or ("?",)
            raise ConflictError(
                f'cannot create container: the name "{name}" is already in use by container '
                f"{holder}",
                hint=f"remove it (`ctr container rm {name}`) or choose another --name",
            ) from None

    def set_container(self, container: str, **values: object) -> None:
        """Change columns of a container's row."""
        columns = ", ".join(f"{key} = ?" for key in values)
        self._db.execute(
            f"update containers set {columns} where id = ?",  # noqa: S608  (our own names)
            (*values.values(), container),
        )

    def drop_container(self, container: str) -> None:
        """Forget a container; one already gone is a success."""
        self._db.execute("delete from containers where id = ?", (container,))

    def container(self, reference: str) -> ContainerRow:
        """Find a container by name, ID or unique ID prefix.

        Raises NotFoundError, or ConflictError when a prefix fits several.
        """
        rows = self._rows("where id = ?1 or name = ?1", (reference,))
        if not rows and all(c in "0123456789abcdef" for c in reference):
            rows = self._rows("where id glob ?1 || '*'", (reference,))
        if not rows:
            raise NotFoundError(
                f"cannot find container {reference!r}", hint="`ctr container ls -a` lists them"
            )
        if len(rows) > 1:
            raise ConflictError(f"cannot find container {reference!r}: {len(rows)} IDs start so")
        return rows[0]

    def find(self, container: str) -> ContainerRow | None:
        """The container with exactly this ID, or None."""
        rows = self._rows("where id = ?", (container,))
        return rows[0] if rows else None

    def containers(self) -> list[ContainerRow]:
        """All containers, newest first."""
        return self._rows("order by created_ns desc", ())

    def _rows(self, where: str, values: tuple[str, ...]) -> list[ContainerRow]:
        cursor = self._db.execute(
            "select id, name, state, created_ns, image, spec, pid, exit_code, oom, started_ns,"  # noqa: S608
            f" finished_ns, error from containers {where}",
            values,
        )
        return [
            ContainerRow._make((*row[:5], json.loads(row[5]), *row[6:8], bool(row[8]), *row[9:]))
            for row in cursor
        ]

    # -- volumes --------------------------------------------------------------------------

    def add_volume(self, row: VolumeRow) -> bool:
        """Record a volume; False when the name is taken."""
        return bool(
            self._db.execute(
                "insert or ignore into volumes values (?, ?, ?, ?)",
                (row.name, row.created_ns, json.dumps(row.labels), row.anonymous),
            ).rowcount
        )

    def drop_volume(self, name: str) -> None:
        """Forget a volume; one already gone is a success."""
        self._db.execute("delete from volumes where name = ?", (name,))

    def volumes(self) -> list[VolumeRow]:
        """All volumes by name."""
        return [
            VolumeRow(name, created, json.loads(labels), bool(anonymous))
            for name, created, labels, anonymous in self._db.execute(
                "select name, created_ns, labels, anonymous from volumes order by name"
            )
        ]

    def use_volume(self, name: str, container: str) -> None:
        """Record that a container uses a volume."""
        self._db.execute("insert or ignore into volume_users values (?, ?)", (name, container))

    def release_volumes(self, container: str) -> None:
        """Forget what volumes a container uses."""
        self._db.execute("delete from volume_users where container = ?", (container,))

    def volume_users(self, name: str) -> list[str]:
        """The containers that use a volume."""
        return [
            row[0]
            for row in self._db.execute(
                "select container from volume_users where volume = ?", (name,)
            )
        ]

    # -- networks -------------------------------------------------------------------------

    def network(self, name: str) -> list[Any] | None:
        """A network's record as it was given, or None."""
        row = self._db.execute("select record from networks where name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def networks(self) -> list[list[Any]]:
        """All networks' records."""
        return [json.loads(row[0]) for row in self._db.execute("select record from networks")]

    def add_network(self, name: str, record: object) -> bool:
        """Record a network; False when the name is taken."""
        return bool(
            self._db.execute(
                "insert or ignore into networks values (?, ?)", (name, json.dumps(record))
            ).rowcount
        )

    def drop_network(self, name: str) -> None:
        """Forget a network; one already gone is a success."""
        self._db.execute("delete from networks where name = ?", (name,))

    def allocate_address(
        self, network: str, container: str, choose: Callable[[set[str]], str]
    ) -> str:
        """Give ``container`` an address that ``choose`` picks, given those in use.

        Unique by constraint: of two processes that choose the same one, one chooses again.
        """
        while True:
            address = choose(set(self.addresses(network)))
            if self._db.execute(
                "insert or ignore into addresses values (?, ?, ?)", (network, address, container)
            ).rowcount:
                return address

    def release_addresses(self, container: str) -> None:
        """Give a container's addresses back."""
        self._db.execute("delete from addresses where container = ?", (container,))

    def addresses(self, network: str) -> Iterator[str]:
        """The addresses in use."""
        for row in self._db.execute("select address from addresses where network = ?", (network,)):
            yield row[0]

    # -- meta -----------------------------------------------------------------------------

    def meta(self, key: str) -> str:
        """A remembered word, or empty."""
        row = self._db.execute("select value from meta where key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def set_meta(self, key: str, value: str) -> None:
        """Remember a word."""
        self._db.execute("insert or replace into meta values (?, ?)", (key, value))


def boot_id() -> str:
    """The kernel's random id of this boot (random(4))."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def write_atomically(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` so that a reader sees the old or the new content, never a part."""
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)


def _mkdir(path: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
