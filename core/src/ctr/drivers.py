"""What a driver is: its description, its probe and the protocol of each kind.

Drivers *describe* the launch (they return mounts and operations), and do what must be
done on the host in do/undo pairs.  Undo is idempotent, takes only what is in the record,
and works with the namespace gone and after a reboot.  A driver owns ``context.root`` and
nothing else, gets all it needs as arguments and never calls back into the engine.

Plain tuples, not attrs classes: this module is on the path of every ``ctr run``, and an
attrs class costs 0.6 ms to define against 0.1 (docs/adr/0004).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ctr.models import (
        Endpoint,
        IdMap,
        Mount,
        NamespaceRequest,
        Network,
        Resources,
        SnapshotOptions,
        Usage,
    )
    from ctr.program import Operation, Slots

#: The version of the protocols below.  A driver whose ``api`` differs is refused.
API = 1

KINDS = ("storage", "network", "cgroup", "namespace")

D = TypeVar("D")


class Probe(NamedTuple):
    """Whether a driver can work here; if not, why (one clause) and what would help."""

    ok: bool
    reason: str = ""
    hint: str = ""


class DriverContext(NamedTuple):
    """What a driver is opened with.

    ``root`` is ``<root>/<kind>/<name>``: persistent and the driver's own; it may not exist
    yet, the driver makes it (mode 0700) when it first writes.  ``run_root`` is the same
    below the run root, gone after a reboot.  ``options`` is an instance of the driver's
    options class, or None where none was given.
    """

    root: str
    run_root: str
    options: object = None


class DriverInfo(NamedTuple, Generic[D]):
    """One driver on offer.

    ``factory`` opens it; heavy imports wait until then.  ``probe`` is cheap, pure, quiet
    and never raises.  ``options`` names the attrs class of its options as
    ``"module:Class"``, so that the class is only imported when an option is given or
    listed; each attribute's metadata may carry ``help``.  ``capabilities`` are the words
    by which the conformance kit gates its laws.
    """

    name: str
    summary: str
    factory: Callable[[DriverContext], D]
    probe: Callable[[DriverContext], Probe]
    options: str = ""
    capabilities: frozenset[str] = frozenset()
    api: int = API


class StorageDriver(Protocol):
    """Layered file systems.

    A *snapshot* is *active* (writable), a *view* (read-only) or *committed*; ``key`` names
    one of the first two, ``name`` and ``parent`` name committed ones, and all live in one
    key space.  Keys are ``[a-zA-Z0-9][a-zA-Z0-9_.:-]*``, at most 128 characters.

    To apply a layer: ``prepare(key, parent)``, mount what it returns, change the tree,
    ``commit(name, key)``.  To run a container: ``prepare(id, top)``, mount, run,
    ``remove(id)``.  Drivers never mount: they return mounts, whose ``source`` and options
    hold absolute paths.
    """

    def prepare(self, key: str, parent: str | None, options: SnapshotOptions) -> list[Mount]:
        """Make an active snapshot of ``parent`` (None: of nothing); return its mounts.

        Raises ConflictError when ``key`` exists, NotFoundError when ``parent`` is not a
        committed snapshot.  What was half made when the process died is gone for the
        caller: ``prepare`` of the same key succeeds after ``remove``.
        """
        ...

    def view(self, key: str, parent: str) -> list[Mount]:
        """Make a read-only snapshot of ``parent``; return its mounts.  Raises as prepare does."""
        ...

    def mounts(self, key: str) -> list[Mount]:
        """Return the mounts of an active snapshot or a view again.  Raises NotFoundError."""
        ...

    def commit(self, name: str, key: str) -> None:
        """Turn the active snapshot ``key`` into the committed one ``name``, atomically.

        ``key`` is gone afterwards.  Raises ConflictError when ``name`` exists (``key`` is
        untouched then), NotFoundError when ``key`` does not.
        """
        ...

    def remove(self, key: str) -> None:
        """Remove a snapshot of any kind.  One already gone is a success.

        Raises ConflictError when a committed snapshot still has children.
        """
        ...

    def walk(self) -> Iterator[Snapshot]:
        """Yield every snapshot, half-made ones excluded."""
        ...

    def gc(self, valid: frozenset[str]) -> list[str]:
        """Remove what no key of ``valid`` needs, leftovers included; return what went.

        The parents of a valid key are kept, whether named or not.
        """
        ...


class Snapshot(NamedTuple):
    """One snapshot as ``walk`` tells it; ``kind`` is active, view or committed."""

    key: str
    kind: str
    parent: str | None


@runtime_checkable
class StorageUsage(Protocol):
    """Optional, declared by the capability ``usage``."""

    def usage(self, key: str) -> Usage:
        """Disk usage of the snapshot itself, without its parents.  Raises NotFoundError."""
        ...


class NetworkDriver(Protocol):
    """Networks and the endpoints that join a container to them (libnetwork's words).

    Names of links and addresses are decided by the engine and are in the records, so that
    every verb can be repeated and undone from the record alone.
    """

    def create_network(self, network: Network) -> None:
        """Make the network on the host.  One that already stands as recorded is a success."""
        ...

    def remove_network(self, network: Network) -> None:
        """Take the network down.  One already gone is a success."""
        ...

    def attach(self, network: Network, endpoint: Endpoint, netns: int) -> None:
        """Join the network namespace behind the descriptor ``netns`` to the network.

        On return the interface is up inside, with its address and default route.
        """
        ...

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        """Undo ``attach``; works with the namespace gone.  Already undone is a success."""
        ...

    def describe(self, network: Network, endpoint: Endpoint) -> list[str]:
        """Say in one line each what ``attach`` would do (for ``ctr plan``).  Pure."""
        ...

    def walk(self) -> Iterator[str]:
        """Yield the names of the host's links that belong to this driver."""
        ...

    def gc(self, valid: frozenset[str]) -> list[str]:
        """Remove the driver's host links that are not in ``valid``; return what went."""
        ...


class CgroupDriver(Protocol):
    """Control groups.  ``group`` is a path below the hierarchy's root, such as ``/ctr/ID``."""

    def create(self, group: str, resources: Resources) -> None:
        """Make the group in each hierarchy and write its limits.

        Raises UnsupportedError naming a controller that the machine lacks, but only when
        a limit that needs it was asked for; InvalidError for a value the kernel refuses.
        A group that exists is taken over.
        """
        ...

    def remove(self, group: str) -> None:
        """Kill what is left inside, then remove the group.  One already gone is a success."""
        ...

    def launch(
        self, group: str, resources: Resources, slots: Slots, *, private: bool
    ) -> list[Operation]:
        """Operations that put the container into the group, in the order they must run.

        ``private``: with a cgroup namespace of its own, of which the group is the root.
        Each operation carries the phase it belongs to.
        """
        ...

    def mounts(self, group: str, slots: Slots, *, private: bool, writable: bool) -> list[Operation]:
        """Operations that show the group below ``/sys/fs/cgroup`` of the container."""
        ...

    def update(self, group: str, resources: Resources) -> None:
        """Change the limits of a group that exists; unset fields stay as they are."""
        ...

    def processes(self, group: str) -> list[int]:
        """The host's PIDs inside the group and below; empty when it is gone."""
        ...

    def walk(self) -> Iterator[str]:
        """Yield the groups directly below the default parent ``/ctr``."""
        ...

    def gc(self, valid: frozenset[str]) -> list[str]:
        """Remove the groups of ``walk`` that are not in ``valid``; return what went.

        One with processes is left alone: it is a live container of another root.
        """
        ...


class NamespaceParts(NamedTuple):
    """What one namespace adds to the program: clone flags and operations with their phase."""

    clone_flags: int = 0
    operations: tuple[Operation, ...] = ()


class NamespaceDriver(Protocol):
    """One type of namespace."""

    #: The CLONE_NEW… flag, from linux/sched.h.
    flag: int
    #: The file's name below /proc/PID/ns.
    proc_name: str
    #: Modes that it knows, of private, host and path.
    modes: frozenset[str]

    def parts(self, request: NamespaceRequest, slots: Slots) -> NamespaceParts:
        """What the launch needs for this mode.  Pure; raises InvalidError for a wrong option."""
        ...


class HookContext(NamedTuple):
    """What the OCI hook points are told.

    ``pid`` is the host's PID of the container's PID 1 (0 in ``ctr_poststop``);
    ``namespaces`` maps a proc name (``net``, ``mnt``, …) to an open descriptor that is
    closed when the hook returns; ``bundle`` is the container's state folder.
    """

    container: str
    name: str
    pid: int
    bundle: str
    namespaces: dict[str, int]
    annotations: dict[str, str]


def check_idmap(maps: Sequence[IdMap]) -> None:
    """Raise InvalidError unless the ranges are positive and overlap on neither side."""
    from itertools import pairwise

    from ctr.errors import InvalidError

    for side in (0, 1):
        ranges = sorted((entry[side], entry[side] + entry.size) for entry in maps)
        if any(entry.size <= 0 or entry[side] < 0 for entry in maps):
            raise InvalidError("cannot use the id map: start and size must be positive")
        if any(end > start for (_, end), (start, _) in pairwise(ranges)):
            raise InvalidError("cannot use the id map: its ranges overlap")
