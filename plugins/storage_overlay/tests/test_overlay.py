"""What overlay promises beyond the laws of every storage driver."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ctr.errors import StateError, UnsupportedError
from ctr.models import IdMap, SnapshotOptions
from ctr.testing.storage_support import OPTIONS, layer, mounted, read, write
from ctr_storage_overlay import driver as driver_module
from ctr_storage_overlay.driver import OverlayStorage

if TYPE_CHECKING:
    from pathlib import Path

VOLATILE = SnapshotOptions(volatile=True)
MAPPED = SnapshotOptions(uid_map=(IdMap(0, 200000, 10),), gid_map=(IdMap(0, 200000, 10),))
RELEASES = ("6.1.0", os.uname().release)

pytestmark = [pytest.mark.root, pytest.mark.driver("storage:overlay")]


@pytest.mark.parametrize("release", RELEASES)
def test_a_layer_cannot_forge_what_overlayfs_believes(tmp_path: Path, release: str) -> None:
    """Whiteouts and redirects come from the kernel alone, in the first layer too."""
    storage = OverlayStorage(f"{tmp_path}/root", release=release)
    with layer(storage, "first") as root:
        os.mkdir(f"{root}/folder")
        with pytest.raises(PermissionError):
            os.mknod(f"{root}/whiteout", stat.S_IFCHR, os.makedev(0, 0))
        with contextlib.suppress(OSError):  # refused before Linux 6.7, then given another name
            os.setxattr(f"{root}/folder", "trusted.overlay.redirect", b"/elsewhere")
    (folder,) = [one for one in os.listdir(f"{tmp_path}/root") if _holds(tmp_path, one, "folder")]
    attributes = os.listxattr(f"{tmp_path}/root/{folder}/fs/folder")
    assert "trusted.overlay.redirect" not in attributes


def _holds(tmp_path: Path, folder: str, name: str) -> bool:
    return os.path.exists(f"{tmp_path}/root/{folder}/fs/{name}")


def test_a_layer_is_plain_files_whiteouts_and_opaque_folders(tmp_path: Path) -> None:
    """So that any tool can read it: no metacopy, no redirect."""
    storage = OverlayStorage(f"{tmp_path}/root")
    with layer(storage, "base") as root:
        write(f"{root}/file", "content")
        write(f"{root}/gone")
        os.mkdir(f"{root}/folder")
        write(f"{root}/folder/inner")
    (mount,) = storage.prepare("key", "base", OPTIONS)
    (upper,) = [word.split("=")[1] for word in mount.options if word.startswith("upperdir=")]
    upper = os.path.join(f"{tmp_path}/root", upper)
    with mounted([mount]) as root:
        os.chmod(f"{root}/file", 0o600)
        os.unlink(f"{root}/gone")
        os.unlink(f"{root}/folder/inner")
        os.rmdir(f"{root}/folder")
        os.mkdir(f"{root}/folder")
    assert read(f"{upper}/file") == "content"
    assert os.stat(f"{upper}/gone").st_rdev == 0
    assert stat.S_ISCHR(os.stat(f"{upper}/gone").st_mode)
    assert os.getxattr(f"{upper}/folder", "trusted.overlay.opaque") == b"y"


def test_metacopy_copies_no_content(tmp_path: Path) -> None:
    storage = OverlayStorage(f"{tmp_path}/root", metacopy=True)
    content = os.urandom(1 << 20)
    with layer(storage, "base") as root, open(f"{root}/file", "wb") as file:
        file.write(content)
    with layer(storage, "changed", "base") as root:
        os.chmod(f"{root}/file", 0o600)
    assert storage.usage("changed").size < 1 << 16
    # A driver without the option still mounts it, and children of it, with it.
    (mount,) = OverlayStorage(f"{tmp_path}/root").prepare("key", "changed", OPTIONS)
    assert "metacopy=on" in mount.options
    with mounted([mount]) as root:
        with open(f"{root}/file", "rb") as file:
            assert file.read() == content


def test_other_ids_copy_no_content_and_are_made_once(tmp_path: Path) -> None:
    storage = OverlayStorage(f"{tmp_path}/root")
    with layer(storage, "base") as root, open(f"{root}/file", "wb") as file:
        file.write(os.urandom(1 << 20))
    (first,) = storage.prepare("one", "base", MAPPED)
    (second,) = storage.prepare("two", "base", MAPPED)
    assert [word for word in first.options if "lower" in word] == [
        word for word in second.options if "lower" in word
    ]
    assert storage.usage("one").size < 1 << 16
    (plain,) = storage.prepare("three", "base", OPTIONS)
    assert "metacopy=off" in plain.options
    assert len(os.listdir(f"{tmp_path}/root")) == 4 + 5  # base, its copy, three children
    assert storage.gc(frozenset({"base"})) == ["one", "three", "two"]
    assert len(os.listdir(f"{tmp_path}/root")) == 4 + 2
    storage.remove("base")
    assert sorted(os.listdir(f"{tmp_path}/root")) == ["empty", "keys", "lock", "merged"]
    assert os.listdir(f"{tmp_path}/root/keys") == []


def test_volatile_is_for_one_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = OverlayStorage(f"{tmp_path}/root")
    (mount,) = storage.prepare("key", None, VOLATILE)
    assert "volatile" in mount.options
    with mounted([mount]) as root:
        write(f"{root}/file", "kept")
    with pytest.raises(OSError), mounted([mount]):
        pass
    with mounted(storage.mounts("key")) as root:
        assert read(f"{root}/file") == "kept"
    monkeypatch.setattr(driver_module, "_boot_flag", lambda: "boot-another")
    with pytest.raises(StateError, match="restarted"):
        storage.mounts("key")
    storage.remove("key")


def test_too_many_layers_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = OverlayStorage(f"{tmp_path}/root")
    monkeypatch.setattr("ctr_storage_overlay.mounting._MAX_LAYERS", 2)
    parent = None
    for name in ("one", "two", "three"):
        with layer(storage, name, parent):
            pass
        parent = name
    with pytest.raises(UnsupportedError, match="stack 3 layers"):
        storage.prepare("key", "three", OPTIONS)
    assert "key" not in {one.key for one in storage.walk()}
    assert storage.gc(frozenset({"three"})) == []


@pytest.mark.parametrize("release", RELEASES)
def test_roots_with_odd_and_long_names(tmp_path: Path, release: str) -> None:
    """Blanks, overlayfs's own separators, and paths longer than an option of fsconfig(2)."""
    for name in ("blank name", "a:b,c\\d", "l" * 200):
        storage = OverlayStorage(f"{tmp_path}/{name}/{name}", release=release)
        with layer(storage, "base") as root:
            write(f"{root}/file", "there")
        with mounted(storage.prepare("key", "base", OPTIONS)) as root:
            assert read(f"{root}/file") == "there"


@pytest.mark.parametrize("release", RELEASES)
def test_three_hundred_layers(tmp_path: Path, release: str) -> None:
    storage = OverlayStorage(f"{tmp_path}/root", release=release)
    parent = None
    for number in range(300):
        storage.prepare("key", parent, OPTIONS)
        parent = f"layer-{number}"
        storage.commit(parent, "key")
        if number == 0:
            (folder,) = [one for one in os.listdir(f"{tmp_path}/root") if _holds(tmp_path, one, "")]
            write(f"{tmp_path}/root/{folder}/fs/bottom", "seen")
    with mounted(storage.prepare("key", parent, OPTIONS)) as root:
        assert read(f"{root}/bottom") == "seen"


def test_what_preparing_imports(tmp_path: Path) -> None:
    """The path of every ``ctr run``: neither attrs nor ctypes nor pathlib for it."""
    code = """
import sys
before = set(sys.modules)
from ctr_storage_overlay.driver import OverlayStorage
from ctr.models import SnapshotOptions
storage = OverlayStorage(sys.argv[1] + "/root")
storage.prepare("base", None, SnapshotOptions())
storage.commit("top", "base")
fresh = {"ctypes", "attr", "attrs", "pathlib", "logging", "subprocess", "shutil", "json"} - before
for name in fresh:
    sys.modules.pop(name, None)
storage.prepare("id", "top", SnapshotOptions(volatile=True))
storage.remove("id")
print(sorted(fresh & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
