"""Whether overlayfs can be used, from what the machine tells."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from ctr.drivers import DriverContext
from ctr.errors import UnsupportedError
from ctr.models import SnapshotOptions
from ctr_storage_overlay import ctr_storage_drivers, probe
from ctr_storage_overlay.driver import OverlayStorage

if TYPE_CHECKING:
    from pathlib import Path

MOUNTINFO = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:26 / /run rw - tmpfs tmpfs rw
31 22 0:27 / /mnt/my\\040disk rw shared:2 master:3 - nfs4 server:/x rw
32 22 0:28 / /mnt/my\\040disk/inner rw - xfs /dev/vdb rw
33 22 0:29 / /data rw - ext4 /dev/vdc rw
34 33 0:30 / /data rw - overlay overlay rw,lowerdir=/a
""".splitlines()


@pytest.mark.parametrize(
    ("path", "fstype"),
    [
        ("/", "ext4"),
        ("/runner", "ext4"),
        ("/run", "tmpfs"),
        ("/run/ctr", "tmpfs"),
        ("/mnt/my disk/ctr", "nfs4"),
        ("/mnt/my disk/inner/ctr", "xfs"),
        ("/data/ctr", "overlay"),
    ],
)
def test_file_system_type(path: str, fstype: str) -> None:
    assert probe.file_system_type(path, MOUNTINFO) == fstype


def test_a_good_folder(tmp_path: Path) -> None:
    assert probe.file_system_problem(f"{tmp_path}/not/yet") == ""


@pytest.mark.parametrize("fstype", ["overlay", "nfs4", "fuse.sshfs", "vfat"])
def test_a_refused_file_system(
    fstype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "file_system_type", lambda path, lines: fstype)
    assert fstype in probe.file_system_problem(f"{tmp_path}")
    with pytest.raises(UnsupportedError) as caught:
        OverlayStorage(f"{tmp_path}/root").prepare("key", None, SnapshotOptions())
    assert fstype in caught.value.message
    assert "vfs" in caught.value.hint
    assert os.listdir(f"{tmp_path}/root") == []


def test_no_extended_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def getxattr(path: str, name: str) -> bytes:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported", path)

    monkeypatch.setattr(os, "getxattr", getxattr)
    assert "extended attributes" in probe.file_system_problem(f"{tmp_path}")


def test_no_types_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_tells_types", lambda path: False)
    assert "d_type" in probe.file_system_problem(f"{tmp_path}")


def test_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (info,) = ctr_storage_drivers()
    answer = info.probe(DriverContext(f"{tmp_path}", ""))
    assert (answer.ok, answer.reason) == (False, "mounting needs root")


def test_a_probe_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: str) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", root)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(probe, "file_system_problem", broken)
    monkeypatch.setattr(probe, "_kernel_has_overlay", lambda: True)
    assert probe.probe("/here") == (False, "/here: Permission denied", "")
