"""Steps, undo and the write-ahead journal: fail or die anywhere, nothing stays held."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ctr import journal as journals
from ctr.errors import ConflictError, StateError
from ctr.journal import FileJournal, MemoryJournal
from ctr.lifecycle import TRANSITIONS, Entry, Step, bring_up, check_transition, take_down

if TYPE_CHECKING:
    from pathlib import Path


class Died(BaseException):
    """Stands for SIGKILL: nothing of the process runs after it."""


class World:
    """What steps hold, and how they break: '', 'before' or 'after' the act."""

    def __init__(self, breaks: list[str], error: type[BaseException]) -> None:
        self.held: set[str] = set()
        self.breaks = breaks
        self.error = error

    def steps(self) -> list[Step]:
        return [
            Step(f"s{i}", {"name": f"s{i}"}, functools.partial(self.act, i, how))
            for i, how in enumerate(self.breaks)
        ]

    def act(self, number: int, how: str) -> None:
        if how == "before":
            raise self.error(f"s{number}")
        self.held.add(f"s{number}")
        if how == "after":
            raise self.error(f"s{number}")

    def undo(self, entry: Entry) -> None:
        self.held.discard(entry.record["name"])


BREAKS = st.lists(st.sampled_from(["", "before", "after"]), max_size=6)


@given(BREAKS)
def test_failure_anywhere_leaks_nothing(breaks: list[str]) -> None:
    world = World(breaks, OSError)
    journal = MemoryJournal()
    with contextlib.suppress(OSError):
        bring_up(world.steps(), journal, world.undo)
        take_down(journal, world.undo)
    assert not world.held
    assert not journal.begun()


@given(BREAKS, st.integers(0, 3))
def test_death_anywhere_is_undone_by_the_next_process(
    tmp_path_factory: pytest.TempPathFactory, breaks: list[str], torn: int
) -> None:
    root = _root(tmp_path_factory.mktemp("root"))
    world = World(breaks, Died)
    journal = FileJournal.create(root, "c1")
    with contextlib.suppress(Died):
        # Not bring_up: what dies undoes nothing.
        for step in world.steps():
            journal.begin(Entry(step.name, step.record))
            step.do()
    if torn:  # it died in the middle of a write of its own
        with open(f"{root}/journal/c1", "ab") as file:
            file.write(b'{"begin":"never"'[: torn * 5])
    journal.close()
    assert journals.unfinished(root) == ["c1"]
    resumed = FileJournal.resume(root, "c1")
    assert resumed is not None
    with resumed:
        take_down(resumed, world.undo)
        resumed.discard()
    assert not world.held
    assert journals.unfinished(root) == []


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_take_down_goes_on_past_failures(fails: list[bool]) -> None:
    journal = MemoryJournal()
    undone = []

    def undo(entry: Entry) -> None:
        undone.append(entry.step)
        if fails[entry.record["number"]]:
            raise OSError(entry.step)

    for number in range(len(fails)):
        journal.begin(Entry(f"s{number}", {"number": number}))
    failing = [f"s{i}" for i in range(len(fails)) if fails[i]]
    if failing:
        with pytest.raises(ExceptionGroup) as caught:
            take_down(journal, undo)
        assert sorted(str(error) for error in caught.value.exceptions) == failing
    else:
        take_down(journal, undo)
    assert undone == [f"s{i}" for i in reversed(range(len(fails)))]
    assert [entry.step for entry in journal.begun()] == failing


def test_the_first_error_stays_the_error_and_names_the_leaks() -> None:
    def fail() -> None:
        raise OSError("the cause")

    def undo(entry: Entry) -> None:
        raise OSError("a leak")

    with pytest.raises(OSError, match="the cause") as caught:
        bring_up([Step("s", {}, fail)], MemoryJournal(), undo)
    assert caught.value.__notes__ == ["clean-up also failed: a leak"]


def test_steps_may_be_made_as_they_go() -> None:
    journal = MemoryJournal()
    found: list[str] = []

    def steps():
        yield Step("one", {}, lambda: found.append("1"))
        yield Step("two", {"after": list(found)}, lambda: None)

    bring_up(steps(), journal, lambda _: None)
    assert journal.begun()[1].record == {"after": ["1"]}


def test_only_some_steps_are_taken_down() -> None:
    journal = MemoryJournal()
    for name in ("keep", "drop"):
        journal.begin(Entry(name, {}))
    take_down(journal, lambda _: None, only=lambda entry: entry.step == "drop")
    assert [entry.step for entry in journal.begun()] == ["keep"]


# -- the file ---------------------------------------------------------------------------------


def _root(path: Path) -> str:
    for name in ("journal", "held"):
        (path / name).mkdir()
    return str(path)


def test_hold_and_reopen(tmp_path: Path) -> None:
    root = _root(tmp_path)
    with FileJournal.create(root, "c1") as journal:
        journal.begin(Entry("one", {"a": 1}))
        journal.hold()
        assert journals.unfinished(root) == []
        assert journals.held(root) == ["c1"]
        journal.hold()  # again is a success
        journal.reopen()
        assert journals.unfinished(root) == ["c1"]
        with pytest.raises(StateError):
            journal.discard()
        journal.end(Entry("one", {"a": 1}))
        journal.discard()
    assert os.listdir(f"{root}/journal") == os.listdir(f"{root}/held") == []


def test_a_journal_is_one_process_at_a_time(tmp_path: Path) -> None:
    root = _root(tmp_path)
    with FileJournal.create(root, "c1") as journal:
        journal.begin(Entry("one", {}))
        assert FileJournal.resume(root, "c1") is None
        assert journals.peek(root, "c1") == [Entry("one", {})]
    with FileJournal.resume(root, "c1") as again:  # type: ignore[union-attr]
        assert again.begun() == [Entry("one", {})]


def test_the_same_step_twice_ends_the_newest(tmp_path: Path) -> None:
    root = _root(tmp_path)
    entry = Entry("one", {})
    with FileJournal.create(root, "c1") as journal:
        for value in (entry, Entry("two", {}), entry):
            journal.begin(value)
        journal.end(entry)
    with FileJournal.resume(root, "c1") as again:  # type: ignore[union-attr]
        assert [value.step for value in again.begun()] == ["one", "two"]


def test_creating_twice_is_a_conflict(tmp_path: Path) -> None:
    root = _root(tmp_path)
    with open(f"{root}/journal/.c1", "w"):
        pass
    with pytest.raises(ConflictError):
        FileJournal.create(root, "c1")


class JournalMachine(RuleBasedStateMachine):
    """A FileJournal, reopened at will, always says what a list says."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        for name in ("journal", "held"):
            os.mkdir(f"{self.folder.name}/{name}")
        self.journal = FileJournal.create(self.folder.name, "c")
        self.model: list[Entry] = []
        self.count = 0

    @rule(step=st.sampled_from(["a", "b"]))
    def begin(self, step: str) -> None:
        self.count += 1
        entry = Entry(step, {"n": self.count})
        self.journal.begin(entry)
        self.model.append(entry)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.model))
        self.journal.end(entry)
        self.model.remove(entry)

    @rule(hold=st.booleans())
    def reopen(self, hold: bool) -> None:
        (self.journal.hold if hold else self.journal.reopen)()
        self.journal.close()
        journal = FileJournal.resume(self.folder.name, "c")
        assert journal is not None
        self.journal = journal

    @invariant()
    def same(self) -> None:
        assert self.journal.begun() == self.model

    def teardown(self) -> None:
        self.journal.close()
        self.folder.cleanup()


TestJournalMachine = JournalMachine.TestCase


# -- states -----------------------------------------------------------------------------------


def test_every_state_leads_to_an_end() -> None:
    for state in TRANSITIONS:
        reached, new = set(), {state}
        while new:
            reached |= new
            new = {t for s in new for t in TRANSITIONS.get(s, ())} - reached
        assert "gone" in reached, state


@pytest.mark.parametrize(("state", "wanted"), [("exited", "paused"), ("created", "exited")])
def test_illegal_transitions_are_refused(state: str, wanted: str) -> None:
    with pytest.raises(ConflictError, match=f"cannot change container web to {wanted}"):
        check_transition("web", state, wanted)
