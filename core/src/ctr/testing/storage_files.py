"""Laws of storage drivers: a file survives its commit with all that the kernel keeps of it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from ctr.testing.storage_support import (
    CAPABILITY,
    OPTIONS,
    StorageFixtures,
    inodes,
    layer,
    mounted,
    viewed,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ctr.drivers import StorageDriver

    Make = Callable[[Callable[[str], None]], "_Through"]


class _Through:
    """Iterates over the roots in which a made tree must show."""

    def __init__(self, driver: StorageDriver) -> None:
        self._driver = driver

    def __iter__(self) -> Iterator[str]:
        with viewed(self._driver, "made") as root:
            yield root
        with mounted(self._driver.prepare("child", "empty-layer", OPTIONS)) as root:
            yield root


class FileLaws(StorageFixtures):
    """What is written into a layer is there in a view of it and in a child of a child."""

    @pytest.fixture
    def through(self, driver: StorageDriver) -> Callable[[Callable[[str], None]], _Through]:
        """Make a tree, commit it, and show it again in a view and in a child of a child."""

        def through(make: Callable[[str], None]) -> _Through:
            with layer(driver, "made") as root:
                make(root)
            with layer(driver, "empty-layer", "made"):
                pass
            return _Through(driver)

        return through

    def test_hard_links(self, through: Make) -> None:
        """Links stay links, across folders too."""

        def make(root: str) -> None:
            os.mkdir(f"{root}/folder")
            write(f"{root}/one", "linked")
            os.link(f"{root}/one", f"{root}/two")
            os.link(f"{root}/one", f"{root}/folder/three")
            os.mkfifo(f"{root}/fifo")
            os.link(f"{root}/fifo", f"{root}/folder/fifo")

        for root in through(make):
            names = ("one", "two", "folder/three")
            assert len({os.stat(f"{root}/{name}").st_ino for name in names}) == 1
            assert {os.stat(f"{root}/{name}").st_nlink for name in names} == {3}
            assert os.stat(f"{root}/fifo").st_ino == os.stat(f"{root}/folder/fifo").st_ino
            assert sorted(os.listdir(root)) == ["fifo", "folder", "one", "two"]

    def test_extended_attributes(self, through: Make, tmp_path: Path) -> None:
        """Those of users, ACLs and file capabilities, on files, folders and links."""
        # posix_acl_xattr.h: version 2; user::rw-, user:1000:r--, group::r--, mask::r--, other::---
        entries = ((1, 6, 2**32 - 1), (2, 4, 1000), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1))
        acl = (2).to_bytes(4, "little") + b"".join(
            tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little")
            for tag, bits, who in (*entries, (32, 0, 2**32 - 1))
        )
        user = "user.name"
        try:
            os.setxattr(tmp_path, user, b"")
        except OSError as error:  # tmpfs has none before Linux 6.6
            assert error.errno == errno.EOPNOTSUPP
            user = "trusted.user"
        expected = {
            "file": {user: b"\0value", "security.capability": CAPABILITY},
            "acl": {"system.posix_acl_access": acl},
            "folder": {user: b""},
            "link": {"trusted.name": b"link"},
        }

        def make(root: str) -> None:
            write(f"{root}/file")
            write(f"{root}/acl")
            os.mkdir(f"{root}/folder")
            os.symlink("nowhere", f"{root}/link")
            for name, attributes in expected.items():
                for attribute, value in attributes.items():
                    os.setxattr(f"{root}/{name}", attribute, value, follow_symlinks=False)

        for root in through(make):
            for name, attributes in expected.items():
                path = f"{root}/{name}"
                assert set(os.listxattr(path, follow_symlinks=False)) == set(attributes)
                for attribute, value in attributes.items():
                    assert os.getxattr(path, attribute, follow_symlinks=False) == value
            assert stat.S_IMODE(os.stat(f"{root}/acl").st_mode) == 0o640

    def test_special_files(self, through: Make) -> None:
        """Devices keep their numbers; fifos and sockets their kind; links their target."""
        target = "../" * 300 + "nowhere"

        def make(root: str) -> None:
            os.mknod(f"{root}/char", stat.S_IFCHR | 0o620, os.makedev(1, 3))
            os.mknod(f"{root}/block", stat.S_IFBLK | 0o660, os.makedev(240, 70000))
            os.mkfifo(f"{root}/fifo", 0o622)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"{root}/socket")
            os.symlink(target, f"{root}/link")

        for root in through(make):
            char, block = os.stat(f"{root}/char"), os.stat(f"{root}/block")
            assert stat.S_ISCHR(char.st_mode)
            assert char.st_rdev == os.makedev(1, 3)
            assert stat.S_ISBLK(block.st_mode)
            assert block.st_rdev == os.makedev(240, 70000)
            assert stat.S_ISFIFO(os.stat(f"{root}/fifo").st_mode)
            assert stat.S_ISSOCK(os.stat(f"{root}/socket").st_mode)
            assert os.readlink(f"{root}/link") == target

    def test_owners_modes_and_times(self, through: Make) -> None:
        """Of files, folders, links and the root: set-id and sticky bits, nanoseconds."""
        made = {
            ".": (0o1751, 7, 8),
            "file": (0o6755, 1000, 4000000000),
            "folder": (0o3770, 65534, 5),
            "none": (0o000, 0, 0),
            "link": (0o777, 11, 12),
            "fifo": (0o621, 13, 14),
        }

        def make(root: str) -> None:
            write(f"{root}/file")
            write(f"{root}/none")
            os.mkdir(f"{root}/folder")
            os.symlink("file", f"{root}/link")
            os.mkfifo(f"{root}/fifo")
            for number, (name, (mode, uid, gid)) in enumerate(reversed(made.items())):
                path = f"{root}/{name}"
                os.chown(path, uid, gid, follow_symlinks=False)
                if name != "link":
                    os.chmod(path, mode)
                os.utime(path, ns=(5, 10**18 + number), follow_symlinks=False)

        for root in through(make):
            for number, (name, (mode, uid, gid)) in enumerate(reversed(made.items())):
                status = os.stat(f"{root}/{name}", follow_symlinks=False)
                assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (
                    mode,
                    uid,
                    gid,
                ), name
                assert status.st_mtime_ns == 10**18 + number, name

    def test_sparse_files(self, through: Make) -> None:
        """A hole stays a hole, at the start, in the middle and at the end."""
        size, middle = 1 << 27, 1 << 26

        def make(root: str) -> None:
            with open(f"{root}/sparse", "wb") as file:
                file.seek(middle)
                file.write(b"x" * 5000)
                file.truncate(size)

        for root in through(make):
            status = os.stat(f"{root}/sparse")
            assert status.st_size == size
            assert status.st_blocks * 512 < 1 << 20
            with open(f"{root}/sparse", "rb") as file:
                for position, expected in ((0, b"\0"), (middle, b"x"), (size - 9, b"\0")):
                    file.seek(position)
                    assert file.read(9) == expected * 9

    def test_names_and_sizes(self, through: Make) -> None:
        """A thousand names, the longest name, names that are no text, files of odd sizes."""
        sizes = (0, 1, 4095, 4096, 4097, 300001)
        odd = (b"n" * 255, b"\xff\xfe", b"new\nline", b"back\\slash:,=", b" ")

        def make(root: str) -> None:
            os.mkdir(f"{root}/many")
            for number in range(1000):
                write(f"{root}/many/{number}")
            for name in odd:
                with open(root.encode() + b"/" + name, "wb") as file:
                    file.write(name)
            for size in sizes:
                with open(f"{root}/size-{size}", "wb") as file:
                    file.write(bytes(number % 251 for number in range(size)))

        for root in through(make):
            assert len(os.listdir(f"{root}/many")) == 1000
            for name in odd:
                with open(root.encode() + b"/" + name, "rb") as file:
                    assert file.read() == name
            for size in sizes:
                with open(f"{root}/size-{size}", "rb") as file:
                    assert file.read() == bytes(number % 251 for number in range(size))

    def test_deep_folders(self, through: Make) -> None:
        """Deeper than a path, a stack or the descriptors of a process reach."""
        depth = 1500

        def make(root: str) -> None:
            folder = os.open(f"{root}/.", os.O_RDONLY | os.O_DIRECTORY)
            for _ in range(depth):
                os.mkdir("deep", dir_fd=folder)
                below = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
            os.close(os.open("bottom", os.O_CREAT, dir_fd=folder))
            os.close(folder)

        for root in through(make):
            assert inodes(root + "/.") == depth + 2
