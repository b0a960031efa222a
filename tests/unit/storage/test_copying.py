"""How content is copied: shared where the file system can, else in the kernel, else by hand."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from ctr import copying
from ctr.idmap import IdMapper

if TYPE_CHECKING:
    from pathlib import Path

SAME = IdMapper((), ())


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source"
    path.mkdir()
    for name in ("one", "two"):
        (path / name).write_bytes(name.encode() * 50000)
    (path / "empty").write_bytes(b"")
    with (path / "sparse").open("wb") as file:
        file.write(b"start")
        file.truncate(1 << 24)
        file.seek(1 << 23)
        file.write(b"middle")
    return str(path)


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "new").mkdir()
    return f"{tmp_path}/new/tree"


def assert_same(source: str, target: str) -> None:
    assert sorted(os.listdir(source)) == sorted(os.listdir(target))
    for name in os.listdir(source):
        with open(f"{source}/{name}", "rb") as first, open(f"{target}/{name}", "rb") as second:
            assert first.read() == second.read()
    assert os.stat(f"{target}/sparse").st_blocks * 512 < 1 << 20
    assert os.listdir(os.path.dirname(target)) == [os.path.basename(target)]


def test_blocks_are_shared_where_they_can_be(
    source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ioctl(to: int, request: int, origin: int) -> int:
        assert request == copying._FICLONE
        size = os.fstat(origin).st_size
        os.ftruncate(to, size)
        clones.append(size)
        return 0

    clones: list[int] = []
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.delattr(os, "copy_file_range")
    copying.copy_tree(source, target, SAME)
    assert sorted(clones) == [150000, 150000, 1 << 24]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL])
def test_a_file_system_that_cannot_share_is_asked_once(
    source: str, target: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ioctl(to: int, request: int, origin: int) -> int:
        asked.append(to)
        raise OSError(number, os.strerror(number))

    asked: list[int] = []
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    copying.copy_tree(source, target, SAME)
    assert len(asked) == 1
    assert_same(source, target)


def test_without_any_help_of_the_kernel(
    source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(copying, "_CHUNK", 4096)
    copying.copy_tree(source, target, SAME)
    assert_same(source, target)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_leaves_no_descriptor(
    source: str, target: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    descriptors = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "copy_file_range", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        copying.copy_tree(source, target, SAME)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_file_that_shrinks_is_an_error(
    source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *arguments: 0)
    with pytest.raises(OSError, match="shorter"):
        copying.copy_tree(source, target, SAME)
