"""The database: unique by constraint, safe for many at once."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat

import pytest

from ctr import ipam
from ctr.errors import ConflictError, NotFoundError, StateError
from ctr.state import State, VolumeRow, write_atomically


@pytest.fixture
def state(tmp_path):
    with_state = State(str(tmp_path / "root"), str(tmp_path / "run"))
    yield with_state
    with_state.close()


def test_folders_are_private(state: State) -> None:
    for folder in (state.root, state.run_root, os.path.join(state.root, "journal")):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


def test_names_are_unique_and_the_holder_is_named(state: State) -> None:
    state.add_container("a" * 64, "web", "creating", 1, "base", {})
    with pytest.raises(ConflictError, match=f'the name "web" is already in use .* {"a" * 64}'):
        state.add_container("b" * 64, "web", "creating", 1, "base", {})


def test_references(state: State) -> None:
    for number, start in enumerate(("abc", "abd", "fff")):
        state.add_container(start.ljust(64, "0"), f"n{number}", "created", number, "base", {"x": 1})
    assert state.container("abc").name == "n0"
    assert state.container("n1").id.startswith("abd")
    assert state.container("f").spec == {"x": 1}
    with pytest.raises(ConflictError, match="2 IDs start so"):
        state.container("ab")
    for missing in ("zzz", "*", "a?", ""):
        with pytest.raises(NotFoundError if missing else ConflictError):
            state.container(missing)
    assert [row.name for row in state.containers()] == ["n2", "n1", "n0"]


def test_a_foreign_schema_is_refused(tmp_path) -> None:
    State(str(tmp_path), str(tmp_path / "run")).close()
    with sqlite3.connect(tmp_path / "ctr.db") as db:
        db.execute("pragma user_version = 99")
    db.close()
    with pytest.raises(StateError, match="schema is version 99"):
        State(str(tmp_path), str(tmp_path / "run"))


def test_a_damaged_database_is_one_error(tmp_path) -> None:
    State(str(tmp_path), str(tmp_path / "run")).close()
    (tmp_path / "ctr.db").write_bytes(b"no database" * 1000)
    for leftover in ("ctr.db-wal", "ctr.db-shm"):
        (tmp_path / leftover).unlink(missing_ok=True)
    with pytest.raises(StateError, match="cannot open"):
        State(str(tmp_path), str(tmp_path / "run"))


def test_volumes(state: State) -> None:
    assert state.add_volume(VolumeRow("v", 1, {"a": "b"}, False))
    assert not state.add_volume(VolumeRow("v", 2, {}, True))
    state.use_volume("v", "c1")
    assert state.volume_users("v") == ["c1"]
    state.release_volumes("c1")
    assert state.volumes() == [VolumeRow("v", 1, {"a": "b"}, False)]
    state.drop_volume("v")
    assert state.volumes() == []


def test_write_atomically(tmp_path) -> None:
    path = str(tmp_path / "file")
    write_atomically(path, b"one")
    write_atomically(path, b"two", 0o644)
    assert (tmp_path / "file").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]


def _allocate(root: str, run_root: str, number: int, results) -> None:
    state = State(root, run_root)
    state.add_container(f"{number:064x}", f"n{number}", "creating", 1, "base", {})
    results.put(
        [
            state.allocate_address(
                "bridge",
                f"{number}",
                lambda used: ipam.next_address("10.1.0.0/24", "10.1.0.1", used),
            )
            for _ in range(4)
        ]
    )
    state.close()


def test_sixteen_at_once_get_sixty_four_addresses(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    root, run_root = str(tmp_path / "r"), str(tmp_path / "run")
    workers = [
        context.Process(target=_allocate, args=(root, run_root, number, results))
        for number in range(16)
    ]
    for worker in workers:
        worker.start()
    addresses = [address for _ in workers for address in results.get(timeout=60)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(set(addresses)) == 64
    state = State(root, run_root)
    assert len(state.containers()) == 16
    state.close()
