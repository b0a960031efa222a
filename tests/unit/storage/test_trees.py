"""Whole trees by descriptor, hostile ones too."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from ctr.errors import InvalidError
from ctr.idmap import IdMapper
from ctr.models import IdMap
from ctr.trees import remove_tree, tree_usage, walk_tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "file").write_bytes(b"x" * 10000)
    (top / "empty").mkdir()
    os.link(top / "a" / "b" / "file", top / "link")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (top / "a" / "out").symlink_to(outside)
    return top


def test_walk(tree: Path) -> None:
    """A folder before what is in it; links are shown, not followed."""
    seen = [(name, stat.S_IFMT(status.st_mode)) for _, name, status in walk_tree(f"{tree}")]
    assert sorted(seen) == [
        ("a", stat.S_IFDIR),
        ("b", stat.S_IFDIR),
        ("empty", stat.S_IFDIR),
        ("file", stat.S_IFREG),
        ("link", stat.S_IFREG),
        ("out", stat.S_IFLNK),
    ]
    names = [name for name, _ in seen]
    assert names.index("a") < names.index("b") < names.index("file")


def test_walk_gives_the_folder_of_each_name(tree: Path) -> None:
    for folder, name, status in walk_tree(f"{tree}"):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        assert (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)


def test_walk_holds_no_descriptor_afterwards(tree: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in walk_tree(f"{tree}"):
        break
    list(walk_tree(f"{tree}"))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_usage_counts_a_linked_file_once(tree: Path) -> None:
    usage = tree_usage(f"{tree}")
    assert usage.inodes == 6  # the top, a, b, empty, out and one file
    expected = sum(
        os.lstat(tree / name).st_blocks * 512
        for name in (".", "a", "a/b", "a/out", "empty", "link")
    )
    assert usage.size == expected


def test_remove(tree: Path) -> None:
    """Everything but what links point to; and again."""
    remove_tree(f"{tree}")
    assert not tree.exists()
    assert (tree.parent / "outside" / "kept").read_text() == "kept"
    remove_tree(f"{tree}")


def test_remove_at_any_depth_with_few_descriptors(tmp_path: Path) -> None:
    top = f"{tmp_path}/deep"
    os.mkdir(top)
    folder = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=folder)
        os.close(os.open("f", os.O_CREAT, dir_fd=folder))
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    remove_tree(top)
    assert os.listdir(tmp_path) == []


def test_remove_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError):
        remove_tree(f"{tmp_path}/link")
    assert (tmp_path / "real").is_dir()


def test_owners_are_mapped_by_range() -> None:
    mapper = IdMapper((IdMap(0, 1000, 1), IdMap(1, 100000, 99)), (IdMap(5, 50, 2),))
    assert mapper.owner(0, 5, "f") == (1000, 50)
    assert mapper.owner(99, 6, "f") == (100098, 51)
    assert IdMapper((), ()).owner(7, 8, "f") == (7, 8)


@pytest.mark.parametrize(("uid", "gid", "word"), [(100, 5, "uid 100"), (0, 4, "gid 4")])
def test_an_unmapped_owner_is_named(uid: int, gid: int, word: str) -> None:
    mapper = IdMapper((IdMap(0, 1000, 100),), (IdMap(5, 50, 2),))
    with pytest.raises(InvalidError, match=word) as caught:
        mapper.owner(uid, gid, "some/file")
    assert "some/file" in caught.value.message
