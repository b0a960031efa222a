"""The book-keeping of snapshots: what counts, what is left over, who may go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ctr.errors import ConflictError, InvalidError, NotFoundError
from ctr.snapshots import Record, SnapshotStore, check_key

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(f"{tmp_path}/root")


def nothing(path: str) -> None:
    """An empty folder will do."""


def committed(store: SnapshotStore, name: str, parent: str | None = None) -> Record:
    store.create("key", "active", store.parent(parent) if parent else None, nothing)
    store.commit(name, "key")
    return store.parent(name)


def folders(store: SnapshotStore) -> set[str]:
    return {name for name in os.listdir(store.root) if name not in ("keys", "lock")}


@pytest.mark.parametrize("key", ["a", "0", "sha256:00", "A_b-c.d", "k" * 128])
def test_good_keys(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "-a", "_a", "a@b", "k" * 129, "é", "a\n"])
def test_bad_keys(key: str) -> None:
    with pytest.raises(InvalidError):
        check_key(key)


def test_a_record_is_read_as_it_was_written(store: SnapshotStore) -> None:
    base = committed(store, "base")
    made = store.create(
        "k", "active", base, nothing, layers=("aaaaaa", base.folder), flags={"two", "one"}
    )
    assert made == Record(
        "k", "active", "base", made.folder, ("aaaaaa", base.folder), frozenset({"one", "two"})
    )
    assert SnapshotStore(store.root).get("k") == made
    assert base.parent is None
    assert base.layers == ()


def test_what_fails_to_be_filled_is_gone(store: SnapshotStore) -> None:
    def fail(path: str) -> None:
        os.mkdir(f"{path}/half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.create("key", "active", None, fail)
    assert folders(store) == set()
    assert list(store.walk()) == []


def test_set_up_that_fails_is_tried_again(tmp_path: Path) -> None:
    answers = [OSError("not here")]

    def set_up(root: str) -> None:
        if answers:
            raise answers.pop()
        os.mkdir(f"{root}/extra")

    store = SnapshotStore(f"{tmp_path}/deep/root", set_up)
    with pytest.raises(OSError, match="not here"):
        store.create("key", "active", None, nothing)
    store.create("key", "active", None, nothing)
    assert "extra" in os.listdir(store.root)


def test_the_key_is_taken_while_another_fills(store: SnapshotStore) -> None:
    """Nothing is locked meanwhile; the second to come to the end loses."""

    def slow(path: str) -> None:
        store.create("key", "active", None, nothing)

    with pytest.raises(ConflictError, match="taken"):
        store.create("key", "view", None, slow)
    assert store.get("key").kind == "active"
    assert len(folders(store)) == 1


def test_a_parent_stays_while_it_is_copied(store: SnapshotStore) -> None:
    base = committed(store, "base")

    def slow(path: str) -> None:
        with pytest.raises(ConflictError, match="being made"):
            store.remove("base")
        assert store.gc(frozenset()) == []

    store.create("key", "active", base, slow)
    assert {one.key for one in store.walk()} == {"base", "key"}


def test_a_parent_that_has_gone(store: SnapshotStore) -> None:
    base = committed(store, "base")
    store.remove("base")
    with pytest.raises(NotFoundError):
        store.create("key", "active", base, nothing)
    committed(store, "base")  # the same key, another snapshot
    with pytest.raises(NotFoundError):
        store.create("key", "active", base, nothing)


def test_a_link_that_does_not_count(store: SnapshotStore) -> None:
    """As a commit leaves it that was killed before its record was replaced."""
    record = store.create("key", "active", None, nothing)
    for name in ("name", "other"):
        os.symlink(f"../{record.folder}", f"{store.root}/keys/{name}")
    os.symlink("../ffffff", f"{store.root}/keys/nowhere")
    assert [one.key for one in store.walk()] == ["key"]
    with pytest.raises(NotFoundError):
        store.get("name")
    store.remove("nowhere")
    store.commit("name", "key")
    assert store.get("name").folder == record.folder
    assert store.gc(frozenset({"name"})) == []
    assert os.listdir(f"{store.root}/keys") == ["name"]


@pytest.mark.parametrize("damage", ["", "key\nactive\n", "\0" * 40])
def test_a_record_that_a_crash_of_the_machine_cut(store: SnapshotStore, damage: str) -> None:
    """Its snapshot never was, and its folder is swept."""
    record = store.create("key", "active", None, nothing)
    with open(f"{store.root}/{record.folder}/record", "w", encoding="ascii") as file:
        file.write(damage)
    assert list(store.walk()) == []
    store.create("key", "active", None, nothing)
    assert store.gc(frozenset({"key"})) == [record.folder]
    assert len(folders(store)) == 1


def test_leftovers_are_swept(store: SnapshotStore) -> None:
    store.create("key", "active", None, nothing)
    os.makedirs(f"{store.root}/0123ab/fs/deep")
    assert store.gc(frozenset({"key"})) == ["0123ab"]
    assert "0123ab" not in folders(store)


def test_removing_what_was_broken_off_sweeps_its_folder(store: SnapshotStore) -> None:
    """Nobody knows whose folder it was: the key comes last."""
    store.create("key", "active", None, nothing)
    os.mkdir(store.path("0123ab"), 0o700)
    store.remove("broken-off")
    assert not os.path.exists(store.path("0123ab"))
    assert store.get("key").key == "key"


def test_a_folder_in_the_making_is_no_leftover(store: SnapshotStore) -> None:
    def slow(path: str) -> None:
        assert store.gc(frozenset()) == []
        assert os.path.isdir(path)

    store.create("key", "active", None, slow)


def test_what_is_derived_goes_with_its_owner(store: SnapshotStore) -> None:
    base = committed(store, "base")
    store.create("base@ids", "committed", base, nothing)
    assert store.find("base@ids") is not None
    assert [one.key for one in store.walk()] == ["base"]
    with pytest.raises(InvalidError):
        store.get("base@ids")
    assert store.gc(frozenset({"base"})) == []
    assert len(folders(store)) == 2
    store.remove("base")
    assert folders(store) == set()


def test_gc_takes_what_is_derived(store: SnapshotStore) -> None:
    store.create("base@ids", "committed", committed(store, "base"), nothing)
    assert store.gc(frozenset()) == ["base"]
    assert folders(store) == set()
    assert os.listdir(f"{store.root}/keys") == []


def test_gc_removes_children_before_parents(store: SnapshotStore) -> None:
    """A sweep that is killed leaves no child without its parent."""
    committed(store, "a")
    committed(store, "b", "a")
    committed(store, "0", "b")
    assert store.gc(frozenset()) == ["0", "b", "a"]
