"""The system-call wrappers that the launchers' tests do not reach."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from ctr import kernel as linux
from ctr.models import Mount

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    for name in ("a", "b", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/x").write_text("of a")
    (tmp_path / "b/x").write_text("of b")
    (tmp_path / "b/y").write_text("of b")
    return tmp_path


def read(mount: Mount, name: str) -> str:
    """A file in a mount that nobody else sees."""
    fd = linux.mount_detached(mount)
    try:
        assert not os.get_inheritable(fd)
        file = os.open(name, os.O_RDONLY, dir_fd=fd)
        try:
            return os.read(file, 100).decode()
        finally:
            os.close(file)
    finally:
        os.close(fd)


def mounts(folder: Path) -> list[Mount]:
    """The same overlay by the new calls and by mount(2)."""
    new = ("lowerdir={0}/a:{0}/b", "upperdir={0}/upper", "workdir={0}/work")
    old = ("lowerdir=a:b", "upperdir=upper", "workdir=work")
    return [
        Mount("overlay", "overlay", tuple(option.format(folder) for option in new)),
        Mount("overlay", "overlay", old, staging=str(folder)),
    ]


@pytest.mark.parametrize("number", [0, 1], ids=["fsmount", "staged"])
def test_an_overlay_without_a_place(layers: Path, number: int) -> None:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        before = file.read()
    mount = mounts(layers)[number]
    assert read(mount, "x") == "of a"
    assert read(mount, "y") == "of b"
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert file.read() == before
    assert not os.listdir(layers / "merged")


def test_a_bind_without_a_place(layers: Path) -> None:
    assert read(Mount("bind", str(layers / "a")), "x") == "of a"


@pytest.mark.parametrize("number", [0, 1, 2], ids=["fsmount", "staged", "bind"])
def test_attributes(layers: Path, number: int) -> None:
    mount = [*mounts(layers), Mount("bind", str(layers))][number]
    fd = linux.mount_detached(mount._replace(attributes=linux.MOUNT_ATTR_RDONLY))
    try:
        with pytest.raises(OSError, match="Read-only") as caught:
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        assert caught.value.errno == errno.EROFS
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("mount", "number", "words"),
    [
        (Mount("nonesuch", ""), errno.ENODEV, "nonesuch"),
        (Mount("tmpfs", "", ("nonesuch=1",)), errno.EINVAL, "Unknown parameter 'nonesuch'"),
        (Mount("tmpfs", "", ("ro", "size=x")), errno.EINVAL, "Bad value for 'size'"),
        (Mount("bind", "/none"), errno.ENOENT, "/none"),
        (Mount("overlay", "", ("lowerdir=none",), staging="/tmp"), errno.ENOENT, "/tmp"),
        (Mount("overlay", "", (), staging="/none"), errno.ENOENT, "/none"),
    ],
    ids=lambda value: value.type if isinstance(value, Mount) else None,
)
def test_a_mount_that_can_not_be_made(mount: Mount, number: int, words: str) -> None:
    held = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as caught:
        linux.mount_detached(mount)
    assert caught.value.errno == number
    assert words in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == len(held)


def test_a_path_stays_in_its_root(layers: Path) -> None:
    os.symlink("/etc/passwd", layers / "a/absolute")
    os.symlink("../../../../b/y", layers / "a/upwards")
    os.symlink("x", layers / "a/here")
    root = os.open(layers / "a", os.O_PATH)
    try:
        for name in ("absolute", "upwards", "../b/y", "/etc/passwd"):
            with pytest.raises(FileNotFoundError):
                linux.openat2(root, name, os.O_RDONLY, resolve=linux.RESOLVE_IN_ROOT)
        os.close(linux.openat2(root, "here", os.O_RDONLY, resolve=linux.RESOLVE_IN_ROOT))
    finally:
        os.close(root)


def test_a_sealed_memfd_can_be_read_and_nothing_else() -> None:
    fd = linux.sealed_memfd("test", b"content")
    try:
        assert os.read(fd, 100) == b"content"
        for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)


def test_clone3_is_a_fork_into_new_namespaces() -> None:
    ours, theirs = os.pipe()
    pid = linux.clone3(linux.CLONE_NEWPID | linux.CLONE_NEWUTS, signal.SIGCHLD)
    if pid == 0:
        try:
            linux.sethostname("cloned")
            os.write(theirs, f"{os.getpid()} {os.uname().nodename}".encode())
        finally:
            os._exit(0)
    try:
        assert os.waitpid(pid, 0) == (pid, 0)
        assert os.read(ours, 100) == b"1 cloned"
        assert os.uname().nodename != "cloned"
    finally:
        os.close(ours)
        os.close(theirs)
    with pytest.raises(OSError) as caught:
        linux.clone3(linux.CLONE_NEWNS | 0x200, signal.SIGCHLD)  # and CLONE_FS
    assert caught.value.errno == errno.EINVAL


def test_capabilities_are_read_back() -> None:
    with open("/proc/self/status", encoding="ascii") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if line.startswith("Cap"))
    shown = (int(lines[name], 16) for name in ("CapEff", "CapPrm", "CapInh"))
    assert linux.capget() == tuple(shown)
