"""The launch program: a flat list of small typed operations, each one or two system calls.

Every operation carries who asked for it (``by``) and the phase it runs in; ``describe()``
is its line in ``ctr plan``, ``--debug`` and in the error that names it.  The launcher runs
the list from the first to the last and decides nothing.

Phases are in the order of time.  Each belongs to a *side*, the process that runs it:

========== =========== ==================================================================
phase      side        what happens there
========== =========== ==================================================================
WATCH      supervisor  what the supervisor keeps an eye on
PREPARE    parent      open descriptors, join namespaces, make detached mounts
CLONE      parent      the one ``Clone``
CLONED     parent      id maps, OOM score: about the child, which waits
(sync A)   engine      endpoints, ``ctr_create_runtime``
JOIN       child       cgroups, cgroup namespace, propagation, the new root attached
SETUP      child       mounts and devices, with the host's root still visible
(sync B)   engine      ``ctr_create_container``
ROOT       child       pivot_root, then what needs the new root: sysctls, rlimits, keyring
(sync C)   engine      OCI "created"; ``ctr_start_container``
LAST       child       no-new-privileges, seccomp, identity, capabilities, descriptors, exec
========== =========== ==================================================================

Classes are made by ``Operation.__init_subclass__`` from their annotations and not by attrs:
thirty-five attrs classes would cost every ``ctr run`` 20 ms (docs/adr/0004).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_SLOT = -1
MAX_SLOTS = 256


class Phase(IntEnum):
    """When an operation runs; see the module's table."""

    WATCH = 0
    PREPARE = 1
    CLONE = 2
    CLONED = 3
    JOIN = 4
    SETUP = 5
    ROOT = 6
    LAST = 7


class Side(IntEnum):
    """Which process runs an operation."""

    SUPERVISOR = 0
    PARENT = 1
    CHILD = 2


SIDES = {
    Phase.WATCH: Side.SUPERVISOR,
    Phase.PREPARE: Side.PARENT,
    Phase.CLONE: Side.PARENT,
    Phase.CLONED: Side.PARENT,
    Phase.JOIN: Side.CHILD,
    Phase.SETUP: Side.CHILD,
    Phase.ROOT: Side.CHILD,
    Phase.LAST: Side.CHILD,
}


class Verify(IntEnum):
    """What an opened file must turn out to be before it is used."""

    ANY = 0
    CHAR_DEVICE = 1  # with the operation's major and minor
    PROCFS = 2
    CGROUP = 3  # v1 or v2
    NSFS = 4
    DIRECTORY = 5


class Create(IntEnum):
    """What to make where a mount's target is missing."""

    NOTHING = 0
    DIRECTORY = 1
    FILE = 2
    #: A folder as well, and no link on the way to it: later operations must find it again,
    #: and what a link means can be changed by a mount in between.
    PLAIN_DIRECTORY = 3


class Slots:
    """Hands out the program's descriptor slots."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def new(self, name: str) -> int:
        """Return a fresh slot; ``name`` is for readers of the plan."""
        if len(self._names) == MAX_SLOTS:
            raise OverflowError(f"a launch program has at most {MAX_SLOTS} descriptor slots")
        self._names.append(name)
        return len(self._names) - 1

    @property
    def names(self) -> tuple[str, ...]:
        """The slots' names by number."""
        return tuple(self._names)


#: Every operation by its opcode.
OPERATIONS: dict[int, type[Operation]] = {}


@dataclass_transform()
class Operation:
    """Base of all operations.

    A subclass's annotated names are its fields, in the order in which they are encoded;
    their types are int, str, bytes, ``tuple[str, ...]`` and ``tuple[int, ...]``.  ``by`` is
    set by the compiler from the driver it asked, so a plugin can't speak for another.
    """

    opcode: ClassVar[int]
    fields: ClassVar[tuple[tuple[str, str], ...]] = ()
    default_phase: ClassVar[Phase]

    if TYPE_CHECKING:

        @property
        def phase(self) -> Phase: ...
        @property
        def by(self) -> str: ...

    else:
        by = ""

        def __init__(self, *values: Any, **named: Any) -> None:
            fields = self.fields
            if len(values) > len(fields):
                raise TypeError(f"{type(self).__name__} takes {len(fields)} fields")
            for (name, _), value in zip(fields, values, strict=False):
                setattr(self, name, value)
            for name, _ in fields[len(values) :]:
                if name in named:
                    setattr(self, name, named.pop(name))
                elif not hasattr(self, name):
                    raise TypeError(f"{type(self).__name__} needs {name!r}")
            if named:
                raise TypeError(f"{type(self).__name__} has no field {next(iter(named))!r}")
            self.phase = self.default_phase

    def __init_subclass__(cls, opcode: int, phase: Phase) -> None:
        cls.opcode = opcode
        cls.default_phase = phase
        cls.fields = tuple(cls.__dict__.get("__annotations__", {}).items())  # noqa: RUF063
        OPERATIONS[opcode] = cls

    def at(self, phase: Phase) -> Self:
        """Move the operation to another phase; returns it."""
        self.__dict__["phase"] = phase
        return self

    def asked_by(self, name: str) -> Self:
        """Record who asked for it; returns it.  For the compiler alone."""
        self.__dict__["by"] = name
        return self

    def items(self) -> Iterator[tuple[str, Any]]:
        """Field names and values, in order."""
        for name, _ in self.fields:
            yield name, getattr(self, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operation) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return (self.opcode, self.phase, self.by, *(value for _, value in self.items()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.items())
        return f"{type(self).__name__}({inner}, by={self.by!r}, phase={self.phase.name})"

    @property
    def side(self) -> Side:
        """The process that runs it."""
        return SIDES[self.phase]

    def describe(self) -> str:
        """One line, starting with a verb, for people."""
        raise NotImplementedError
