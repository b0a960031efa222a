"""The container's life: steps that are undone, and the table of legal transitions.

``bring_up`` runs steps in order and takes down what was begun when one fails;
``take_down`` undoes newest first and goes on past failures.  Each step's intent is in the
journal *before* its act, with all that its undo needs, so the process that undoes need not
be the one that began (see ctr.journal).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ctr.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Record = dict[str, Any]
    Undo = Callable[["Entry"], None]


class Entry(NamedTuple):
    """One step that was begun: its name and what its undo needs (JSON values)."""

    step: str
    record: Record


class Step(NamedTuple):
    """One act on the host.

    ``record`` is written to the journal before ``do`` is called; undoing takes the record
    alone, must succeed when the act never happened, and may be repeated.  ``describe`` is
    the step's line in ``ctr plan``.
    """

    name: str
    record: Record
    do: Callable[[], None]
    describe: str = ""


class Journal(Protocol):
    """What was begun and not yet undone, oldest first."""

    def begin(self, entry: Entry) -> None:
        """Put the entry on record before its act."""
        ...

    def end(self, entry: Entry) -> None:
        """Take the newest such entry off the record after its undo."""
        ...

    def begun(self) -> list[Entry]:
        """The entries on record, oldest first."""
        ...


def bring_up(steps: Iterable[Step], journal: Journal, undo: Undo) -> None:
    """Run ``steps`` in order; on any failure take down all that was begun, then re-raise."""
    try:
        for step in steps:
            journal.begin(Entry(step.name, step.record))
            step.do()
    except BaseException as error:
        try:
            take_down(journal, undo)
        except BaseExceptionGroup as leaks:
            for leak in leaks.exceptions:
                error.add_note(f"clean-up also failed: {leak}")
        raise


def take_down(
    journal: Journal, undo: Undo, *, only: Callable[[Entry], bool] = lambda _: True
) -> None:
    """Undo what was begun, newest first, going on past failures.

    Raises ExceptionGroup of all failures; what could not be undone stays on record.
    """
    errors: list[Exception] = []
    for entry in reversed(journal.begun()):
        if not only(entry):
            continue
        try:
            undo(entry)
            journal.end(entry)
        except Exception as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("could not undo everything", errors)


#: Legal transitions: state -> states that may follow.  ``gone`` is not recorded.
TRANSITIONS: dict[str, frozenset[str]] = {
    "creating": frozenset({"created", "running", "gone"}),
    "created": frozenset({"running", "removing"}),
    "running": frozenset({"paused", "exited", "dead", "removing"}),
    "paused": frozenset({"running", "exited", "dead", "removing"}),
    "exited": frozenset({"running", "removing"}),
    "dead": frozenset({"removing"}),
    "removing": frozenset({"dead", "gone"}),
}


def check_transition(name: str, state: str, wanted: str) -> None:
    """Raise ConflictError unless container ``name`` may go from ``state`` to ``wanted``."""
    if wanted not in TRANSITIONS[state]:
        raise ConflictError(f"cannot change container {name} to {wanted}: it is {state}")
