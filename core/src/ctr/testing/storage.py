"""The laws of a storage driver, as one test class.

A driver's own test is::

    class TestPlain(StorageConformance):
        @pytest.fixture
        def info(self) -> DriverInfo[StorageDriver]:
            (info,) = ctr_storage_drivers()
            return info

The laws need root and a real kernel.  Every mount is made by descriptor, so nothing shows
in a mount table.  Capabilities that the driver declares (``usage``, ``userns``) are tested,
others skipped.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from ctr.drivers import DriverContext, DriverInfo, Snapshot, StorageDriver, StorageUsage
from ctr.errors import ConflictError, CtrError, InvalidError, NotFoundError
from ctr.models import SnapshotOptions
from ctr.testing.pytest_plugin import Undeclared
from ctr.testing.storage_files import FileLaws
from ctr.testing.storage_support import (
    CAPABILITY,
    MAPPED,
    OPTIONS,
    inodes,
    layer,
    mounted,
    read,
    viewed,
    write,
)
from ctr.testing.storage_trouble import TroubleLaws

if TYPE_CHECKING:
    from collections.abc import Callable

BAD_KEYS = ("", ".", "..", "a/b", "/a", "../a", ".a", "-a", "a b", "a\n", "a\0b", "ä", "a@b")
LAYERS = 60


class StorageConformance(FileLaws, TroubleLaws):
    """What every storage driver promises; the fixture ``info`` is the driver's to give."""

    # -- the tale of one key --------------------------------------------------------------

    def test_nothing_is_written_before_the_first_snapshot(
        self, info: DriverInfo[StorageDriver], context: DriverContext
    ) -> None:
        """Probing, listing and removing leave no trace; the root is made private."""
        assert info.probe(context).ok
        driver = info.factory(context)
        assert list(driver.walk()) == []
        driver.remove("nothing")
        assert driver.gc(frozenset()) == []
        assert not os.path.exists(context.root)
        driver.prepare("key", None, OPTIONS)
        assert stat.S_IMODE(os.stat(context.root).st_mode) == 0o700
        driver.remove("key")

    @pytest.mark.parametrize("key", [*BAD_KEYS, "a" * 129])
    def test_bad_keys_are_refused(self, driver: StorageDriver, base: str, key: str) -> None:
        """Every verb checks its keys."""
        driver.prepare("good", base, OPTIONS)
        verbs: tuple[Callable[[], object], ...] = (
            lambda: driver.prepare(key, None, OPTIONS),
            lambda: driver.prepare("new", key, OPTIONS),
            lambda: driver.view(key, base),
            lambda: driver.view("new", key),
            lambda: driver.mounts(key),
            lambda: driver.commit(key, "good"),
            lambda: driver.commit("new", key),
            lambda: driver.remove(key),
        )
        for verb in verbs:
            with pytest.raises(InvalidError):
                verb()
        assert {snapshot.key for snapshot in driver.walk()} == {"good", base}

    def test_every_good_key_is_taken(self, driver: StorageDriver) -> None:
        """All characters, and all 128 of them."""
        keys = {"a", "0", "Az09_.:-", "sha256:" + "f" * 64, "k" * 128}
        for key in keys:
            driver.prepare(key, None, OPTIONS)
        assert {snapshot.key for snapshot in driver.walk()} == keys

    def test_a_taken_key_is_refused(self, driver: StorageDriver, base: str) -> None:
        """By every kind of snapshot, and what holds the key is untouched."""
        with mounted(driver.prepare("active", base, OPTIONS)) as root:
            write(f"{root}/mine", "mine")
        driver.view("view", base)
        for key in ("active", "view", base):
            with pytest.raises(ConflictError):
                driver.prepare(key, None, OPTIONS)
            with pytest.raises(ConflictError):
                driver.view(key, base)
        with mounted(driver.mounts("active")) as root:
            assert read(f"{root}/mine") == "mine"

    def test_a_parent_must_be_committed(self, driver: StorageDriver, base: str) -> None:
        """Unknown, active and viewing keys are no parents."""
        driver.prepare("active", base, OPTIONS)
        driver.view("view", base)
        for parent in ("unknown", "active", "view"):
            with pytest.raises(NotFoundError):
                driver.prepare("new", parent, OPTIONS)
            with pytest.raises(NotFoundError):
                driver.view("new", parent)
        assert "new" not in {snapshot.key for snapshot in driver.walk()}

    def test_mounts_are_told_again(
        self, info: DriverInfo[StorageDriver], context: DriverContext, driver: StorageDriver
    ) -> None:
        """The state is on the disk: another instance tells the same, content included."""
        for options in (OPTIONS, SnapshotOptions(volatile=True)):
            first = driver.prepare("key", None, options)
            with mounted(first) as root:
                write(f"{root}/file", "kept")
            other = info.factory(context)
            assert other.mounts("key") == first
            assert [one.key for one in other.walk()] == ["key"]
            with mounted(other.mounts("key")) as root:
                assert read(f"{root}/file") == "kept"
            driver.remove("key")
        driver.prepare("key", None, OPTIONS)
        driver.commit("name", "key")
        for gone in ("key", "name", "unknown"):
            with pytest.raises(NotFoundError):
                driver.mounts(gone)

    def test_a_view_is_read_only(self, driver: StorageDriver, base: str) -> None:
        """Neither content nor metadata can be changed through it."""
        driver.view("view", base)
        with mounted(driver.mounts("view")) as root:
            assert read(f"{root}/folder/inner/two") == "2"
            changes: tuple[Callable[[], object], ...] = (
                lambda: write(f"{root}/new"),
                lambda: write(f"{root}/file"),
                lambda: os.chmod(f"{root}/file", 0o600),
                lambda: os.unlink(f"{root}/file"),
                lambda: os.mkdir(f"{root}/folder/new"),
            )
            for change in changes:
                with pytest.raises(OSError, match="Read-only") as caught:
                    change()
                assert caught.value.errno == errno.EROFS

    def test_commit(self, driver: StorageDriver, base: str) -> None:
        """The key goes, the name comes; unknown, viewing and committed keys are refused."""
        driver.prepare("key", base, OPTIONS)
        driver.commit("name", "key")
        assert Snapshot("name", "committed", base) in set(driver.walk())
        for gone in ("key", "unknown"):
            with pytest.raises(NotFoundError):
                driver.commit("other", gone)
        driver.view("view", base)
        for wrong in ("view", "name"):
            with pytest.raises(CtrError):
                driver.commit("other", wrong)
        driver.prepare("key", "name", OPTIONS)  # free again

    def test_commit_to_a_taken_name(self, driver: StorageDriver, base: str) -> None:
        """It fails, and the snapshot goes on living."""
        driver.view("view", base)
        with mounted(driver.prepare("key", base, OPTIONS)) as root:
            write(f"{root}/mine", "mine")
        for name in (base, "view", "key"):
            with pytest.raises(ConflictError):
                driver.commit(name, "key")
        with mounted(driver.mounts("key")) as root:
            assert read(f"{root}/mine") == "mine"
        with viewed(driver, base) as root:
            assert not os.path.exists(f"{root}/mine")
        driver.commit("name", "key")

    def test_remove(self, driver: StorageDriver, base: str) -> None:
        """Twice is as good as once; a parent stays while it has children of any kind."""
        driver.prepare("active", base, OPTIONS)
        driver.prepare("next", base, OPTIONS)
        driver.commit("committed", "next")
        driver.view("view", base)
        for child in ("active", "committed", "view"):
            with pytest.raises(ConflictError):
                driver.remove(base)
            with viewed(driver, base) as root:
                assert read(f"{root}/file") == "base"
            driver.remove(child)
            driver.remove(child)
        driver.remove(base)
        driver.remove(base)
        driver.remove("never-there")
        assert list(driver.walk()) == []

    def test_walk_and_gc(self, context: DriverContext, driver: StorageDriver, base: str) -> None:
        """What a valid key stands on is kept, all else goes, from the disk too."""
        clean = inodes(context.root)
        for name, parent in (("middle", base), ("top", "middle"), ("other", base)):
            with layer(driver, name, parent) as root:
                write(f"{root}/{name}")
        driver.prepare("active", "top", OPTIONS)
        driver.view("view", "other")
        assert set(driver.walk()) == {
            Snapshot(base, "committed", None),
            Snapshot("middle", "committed", base),
            Snapshot("top", "committed", "middle"),
            Snapshot("other", "committed", base),
            Snapshot("active", "active", "top"),
            Snapshot("view", "view", "other"),
        }
        assert set(driver.gc(frozenset({"active", "unknown"}))) == {"other", "view"}
        assert {one.key for one in driver.walk()} == {base, "middle", "top", "active"}
        assert driver.gc(frozenset({"active"})) == []
        with mounted(driver.mounts("active")) as root:
            assert sorted(os.listdir(root)) == ["file", "folder", "middle", "top"]
        assert set(driver.gc(frozenset({base}))) == {"middle", "top", "active"}
        assert inodes(context.root) == clean

    def test_the_driver_mounts_nothing(
        self, info: DriverInfo[StorageDriver], driver: StorageDriver, base: str
    ) -> None:
        """Mount table and descriptors are as they were, after every verb."""
        table, descriptors = read("/proc/self/mountinfo"), len(os.listdir("/proc/self/fd"))
        driver.prepare("key", base, MAPPED if "userns" in info.capabilities else OPTIONS)
        driver.view("view", base)
        driver.mounts("key")
        driver.commit("name", "key")
        with pytest.raises(ConflictError):
            driver.remove(base)
        driver.remove("view")
        driver.remove("name")
        driver.gc(frozenset({base}))
        assert read("/proc/self/mountinfo") == table
        assert len(os.listdir("/proc/self/fd")) == descriptors

    # -- layers ---------------------------------------------------------------------------

    def test_the_first_layer_is_an_empty_folder(self, driver: StorageDriver) -> None:
        """Root's, and open to all for reading."""
        with mounted(driver.prepare("key", None, OPTIONS)) as root:
            assert os.listdir(root) == []
            status = os.stat(f"{root}/.")
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)

    def test_a_child_sees_its_parents(self, driver: StorageDriver, base: str) -> None:
        """Content of all layers is merged, in one folder too; the newest wins."""
        with layer(driver, "middle", base) as root:
            write(f"{root}/folder/three", "3")
            write(f"{root}/file", "middle")
        for make in (viewed(driver, "middle"), layer(driver, "top", "middle")):
            with make as root:
                assert read(f"{root}/file") == "middle"
                assert sorted(os.listdir(f"{root}/folder")) == ["inner", "one", "three"]
                assert read(f"{root}/folder/inner/two") == "2"

    def test_siblings_and_parents_see_nothing(self, driver: StorageDriver, base: str) -> None:
        """What a child writes, appends, removes or chmods is its own."""
        driver.prepare("sibling", base, OPTIONS)
        with mounted(driver.prepare("child", base, OPTIONS)) as root:
            write(f"{root}/new")
            with open(f"{root}/file", "a", encoding="utf-8") as file:
                file.write("more")
            os.chmod(f"{root}/folder/one", 0o600)
            os.unlink(f"{root}/folder/inner/two")
            os.chmod(f"{root}/.", 0o700)
            with mounted(driver.mounts("sibling")) as other:
                assert not os.path.exists(f"{other}/new")
        with mounted(driver.mounts("sibling")) as sibling, viewed(driver, base) as view:
            for root in (sibling, view):
                assert sorted(os.listdir(root)) == ["file", "folder"]
                assert read(f"{root}/file") == "base"
                assert stat.S_IMODE(os.stat(f"{root}/folder/one").st_mode) == 0o644
                assert read(f"{root}/folder/inner/two") == "2"
                assert stat.S_IMODE(os.stat(f"{root}/.").st_mode) == 0o755

    def test_removing_hides(self, driver: StorageDriver, base: str) -> None:
        """A removed file or folder stays removed above, and can come back new."""
        with layer(driver, "less", base) as root:
            os.unlink(f"{root}/file")
            os.unlink(f"{root}/folder/inner/two")
            os.rmdir(f"{root}/folder/inner")
        with layer(driver, "more", "less") as root:
            assert os.listdir(root) == ["folder"]
            assert os.listdir(f"{root}/folder") == ["one"]
            os.mkdir(f"{root}/file")
            write(f"{root}/folder/inner", "a file now")
        with viewed(driver, "more") as root:
            assert os.listdir(f"{root}/file") == []
            assert read(f"{root}/folder/inner") == "a file now"

    def test_a_replaced_folder_is_opaque(self, driver: StorageDriver, base: str) -> None:
        """A folder that was removed and made again shows nothing of the old one."""
        with layer(driver, "replaced", base) as root:
            os.unlink(f"{root}/folder/inner/two")
            os.rmdir(f"{root}/folder/inner")
            os.unlink(f"{root}/folder/one")
            os.rmdir(f"{root}/folder")
            os.mkdir(f"{root}/folder")
            write(f"{root}/folder/new")
        for make in (viewed(driver, "replaced"), layer(driver, "top", "replaced")):
            with make as root:
                assert os.listdir(f"{root}/folder") == ["new"]

    def test_renaming(self, driver: StorageDriver, base: str) -> None:
        """A file is renamed; a folder of a lower layer is, or the answer is EXDEV."""
        with layer(driver, "renamed", base) as root:
            os.rename(f"{root}/file", f"{root}/folder/moved")
            try:
                os.rename(f"{root}/folder", f"{root}/elsewhere")
                place = "elsewhere"
            except OSError as error:
                assert error.errno == errno.EXDEV
                place = "folder"
        with viewed(driver, "renamed") as root:
            assert os.listdir(root) == [place]
            assert sorted(os.listdir(f"{root}/{place}")) == ["inner", "moved", "one"]
            assert read(f"{root}/{place}/moved") == "base"
            assert read(f"{root}/{place}/inner/two") == "2"

    def test_many_layers(self, driver: StorageDriver) -> None:
        """As deep as images get: each layer's file is there, the shared one is the last's."""
        parent = None
        for number in range(LAYERS):
            with layer(driver, f"layer-{number}", parent) as root:
                write(f"{root}/own-{number}", str(number))
                write(f"{root}/shared", str(number))
            parent = f"layer-{number}"
        assert parent is not None
        driver.prepare("key", parent, OPTIONS)
        with mounted(driver.mounts("key")) as root:
            assert len(os.listdir(root)) == LAYERS + 1
            assert read(f"{root}/own-0") == "0"
            assert read(f"{root}/shared") == str(LAYERS - 1)
            write(f"{root}/own-0", "changed")

    def test_a_layer_writes_through_a_link(self, driver: StorageDriver) -> None:
        """Folder ``var/run`` over link ``var/run -> ../run``: every driver gives the same tree."""
        from ctr.images.layers import apply

        lower, upper = io.BytesIO(), io.BytesIO()
        with tarfile.open(fileobj=lower, mode="w") as tar:
            for name in ("var", "run"):
                tar.addfile(_entry(name, tarfile.DIRTYPE))
            link = _entry("var/run", tarfile.SYMTYPE)
            link.linkname = "../run"
            tar.addfile(link)
        with tarfile.open(fileobj=upper, mode="w") as tar:
            tar.addfile(_entry("var/run", tarfile.DIRTYPE))
            tar.addfile(_entry("var/run/pid", tarfile.REGTYPE))
        parent = None
        for name, stream in (("lower", lower), ("upper", upper)):
            stream.seek(0)
            with layer(driver, name, parent) as root:
                descriptor = os.open(f"{root}/.", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    apply(descriptor, stream)
                finally:
                    os.close(descriptor)
            parent = name
        with viewed(driver, "upper") as root:
            assert os.readlink(f"{root}/var/run") == "../run"
            assert os.listdir(f"{root}/run") == ["pid"]

    # -- declared capabilities ------------------------------------------------------------

    def test_usage(self, info: DriverInfo[StorageDriver], driver: StorageDriver) -> None:
        """Bytes on the disk, a hard link and a hole not counted; unknown keys are refused."""
        _declared(info, "usage")
        assert isinstance(driver, StorageUsage)
        with mounted(driver.prepare("key", None, OPTIONS)) as root:
            empty = driver.usage("key")
            with open(f"{root}/file", "wb") as file:
                file.write(os.urandom(1 << 20))
                file.flush()
                os.fsync(file.fileno())
            os.link(f"{root}/file", f"{root}/link")
            with open(f"{root}/sparse", "wb") as file:
                file.truncate(1 << 40)
        used = driver.usage("key")
        assert 1 << 20 <= used.size - empty.size < 3 << 19
        assert used.inodes - empty.inodes == 2
        driver.commit("name", "key")
        assert driver.usage("name") == used
        with pytest.raises(NotFoundError):
            driver.usage("key")

    def test_user_namespace(self, info: DriverInfo[StorageDriver], driver: StorageDriver) -> None:
        """Inside ids show as outside ids, with set-id bits, capabilities and links kept."""
        _declared(info, "userns")
        with layer(driver, "base") as root:
            write(f"{root}/file", "content")
            os.chown(f"{root}/file", 1000, 7)
            os.chmod(f"{root}/file", 0o6755)
            os.link(f"{root}/file", f"{root}/again")
            write(f"{root}/ping")
            os.setxattr(f"{root}/ping", "security.capability", CAPABILITY)
            os.makedirs(f"{root}/folder/inner", mode=0o700)
            os.symlink("file", f"{root}/link")
            os.lchown(f"{root}/link", 5, 6)
            os.mknod(f"{root}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.utime(f"{root}/file", ns=(1, 10**18 + 1))
        for key in ("one", "two"):
            with mounted(driver.prepare(key, "base", MAPPED)) as root:
                for name, uid, gid in (
                    (".", 200000, 300000),
                    ("file", 201000, 300007),
                    ("again", 201000, 300007),
                    ("folder/inner", 200000, 300000),
                    ("link", 200005, 300006),
                    ("null", 200000, 300000),
                ):
                    status = os.lstat(f"{root}/{name}")
                    assert (status.st_uid, status.st_gid) == (uid, gid), name
                assert stat.S_IMODE(os.stat(f"{root}/file").st_mode) == 0o6755
                assert os.stat(f"{root}/file").st_mtime_ns == 10**18 + 1
                assert os.stat(f"{root}/file").st_ino == os.stat(f"{root}/again").st_ino
                assert os.getxattr(f"{root}/ping", "security.capability") == CAPABILITY
                assert read(f"{root}/file") == "content"
                write(f"{root}/file", "changed")
        with layer(driver, "top", "base") as root:
            assert os.stat(f"{root}/file").st_uid == 1000
            assert read(f"{root}/file") == "content"
        with mounted(driver.prepare("empty", None, MAPPED)) as root:
            assert os.stat(f"{root}/.").st_uid == 200000
        for key in ("one", "two", "top"):
            driver.remove(key)
        driver.remove("base")

    def test_an_id_without_a_place(
        self, info: DriverInfo[StorageDriver], driver: StorageDriver
    ) -> None:
        """A file whose owner the map lacks is an error that names it, and nothing is made."""
        _declared(info, "userns")
        with layer(driver, "base") as root:
            write(f"{root}/stranger")
            os.chown(f"{root}/stranger", 1001, 0)
        with pytest.raises(InvalidError, match="stranger"):
            driver.prepare("key", "base", MAPPED)
        assert [one.key for one in driver.walk()] == ["base"]
        assert driver.gc(frozenset({"base"})) == []


def _declared(info: DriverInfo[StorageDriver], capability: str) -> None:
    if capability not in info.capabilities:
        raise Undeclared(f"{info.name} does not declare {capability!r}")


def _entry(name: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = 0o755
    return entry
