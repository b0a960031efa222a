"""Images unpacked by real drivers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from ctr import kernel
from ctr.drivers import DriverContext, StorageDriver
from ctr.errors import CtrError, DigestError, ImageError, StateError
from ctr.images.accounts import accounts
from ctr.images.base import ensure_base, make_base
from ctr.images.build_image import publish
from ctr.images.manifest import OCI_LAYER, Descriptor
from ctr.images.reference import parse
from ctr.images.store import ContentStore, Image
from ctr.images.unpack import unpack
from ctr_storage_overlay import ctr_storage_drivers as overlay_drivers
from ctr_storage_vfs import ctr_storage_drivers as vfs_drivers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

DRIVERS = {"overlay": overlay_drivers, "vfs": vfs_drivers}


class Place:
    """A state root with one driver."""

    def __init__(self, path: Path, name: str) -> None:
        self.root = str(path / "state")
        self.name = name
        self.store = ContentStore(f"{self.root}/content")

    @property
    def driver(self) -> StorageDriver:
        (info,) = DRIVERS[self.name]()
        return info.factory(DriverContext(f"{self.root}/storage/{self.name}", f"{self.root}/run"))

    def unpack(self, image: Image) -> str:
        return unpack(self.store, image, self.driver, self.name, state_root=self.root)

    def keys(self) -> set[str]:
        return {snapshot.key for snapshot in self.driver.walk()}

    def tree(self, key: str) -> dict[str, tuple[Any, ...]]:
        """What is in a committed snapshot."""
        (mount,) = self.driver.view("look", key)
        fd = kernel.mount_detached(mount)
        found: dict[str, tuple[Any, ...]] = {}
        try:
            for folder, folders, files, below in os.fwalk(".", dir_fd=fd):
                for name in [*folders, *files]:
                    status = os.stat(name, dir_fd=below, follow_symlinks=False)
                    is_link = stat.S_ISLNK(status.st_mode)
                    found[os.path.normpath(f"{folder}/{name}")] = (
                        status.st_mode,
                        status.st_uid,
                        status.st_size if stat.S_ISREG(status.st_mode) else 0,
                        status.st_mtime_ns,
                        os.readlink(name, dir_fd=below) if is_link else "",
                    )
        finally:
            os.close(fd)
            self.driver.remove("look")
        return found


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.driver(f"storage:{name}")) for name in sorted(DRIVERS)
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


def tar(files: dict[str, bytes | str]) -> bytes:
    """Bytes are a file, text is where a link leads; a name that ends in a slash is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    return buffer.getvalue()


def add(store: ContentStore, *layers: bytes, diff_ids: list[str] | None = None) -> Image:
    with store.ingest() as ingest:
        descriptors = [Descriptor(OCI_LAYER, *ingest.add(layer)) for layer in layers]
        real = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        publish(ingest, {"rootfs": {"diff_ids": diff_ids or real}}, descriptors, [str(parse("x"))])
    return store.resolve("x")


LOWER = tar({"etc/": b"", "etc/passwd": b"root:x:0:0\n\xff", "run/": b"", "var/run": "../run"})
UPPER = tar({"var/run/": b"", "var/run/pid": b"1", "etc/.wh.passwd": b"", "etc/group": b"g:x:1:\n"})


def test_layers_and_accounts(place: Place) -> None:
    image = add(place.store, LOWER, UPPER)
    with pytest.raises(FileNotFoundError):
        accounts(place.root, image.top)
    assert place.unpack(image) == image.top
    assert place.keys() == set(image.chain_ids)
    tree = place.tree(image.top)
    assert set(tree) == {"etc", "etc/group", "run", "run/pid", "var", "var/run"}
    assert accounts(place.root, image.chain_ids[0]) == (b"root:x:0:0\n\xff", b"")
    assert accounts(place.root, image.top) == (b"", b"g:x:1:\n")
    assert place.unpack(image) == image.top
    os.unlink(f"{place.root}/accounts/{image.top[7:]}.json")
    place.unpack(image)
    assert accounts(place.root, image.top) == (b"", b"g:x:1:\n")
    assert place.keys() == set(image.chain_ids)


def test_each_driver_gives_the_same_tree(tmp_path: Path) -> None:
    trees = []
    for name in DRIVERS:
        (tmp_path / name).mkdir()
        place = Place(tmp_path / name, name)
        trees.append(place.tree(place.unpack(add(place.store, LOWER, UPPER, LOWER))))
    assert trees[0] == trees[1]
    assert "etc/passwd" in trees[0]


def test_an_image_without_layers(place: Place) -> None:
    image = add(place.store)
    assert place.unpack(image) == image.top
    assert place.tree(image.top) == {}
    assert accounts(place.root, image.top) == (b"", b"")


@pytest.mark.parametrize("failure", ["diff_id", "blob", "tar", "missing"])
def test_failures_leave_nothing(place: Place, failure: str) -> None:
    error: type[CtrError] = DigestError
    if failure == "diff_id":
        real = f"sha256:{hashlib.sha256(LOWER).hexdigest()}"
        image = add(place.store, LOWER, UPPER, diff_ids=[real, f"sha256:{'0' * 64}"])
        match = "the image says sha256:000"
    elif failure == "tar":
        image = add(place.store, LOWER, tar({"a/../../x": b""}))
        error, match = ImageError, "cannot apply layer sha256:"
    else:
        image = add(place.store, LOWER, UPPER)
        path = place.store.path(image.layers[1].digest)
        match = "its content is another"
        with open(path, "r+b") as file:
            file.write(b"\xff" * 600)
        if failure == "missing":
            os.unlink(path)
            error, match = StateError, "No such file"
    with pytest.raises(error, match=match):
        place.unpack(image)
    assert place.keys() == {image.chain_ids[0]}
    assert not os.path.exists(f"{place.root}/accounts/{image.top[7:]}.json")


def test_what_a_killed_process_left_is_no_obstacle(place: Place) -> None:
    image = add(place.store, LOWER)
    script = (
        "import os, sys\n"
        "from ctr.images import unpack\n"
        "from ctr.images.store import ContentStore\n"
        "from ctr.drivers import DriverContext\n"
        "import importlib\n"
        "root, name = sys.argv[1:]\n"
        "(info,) = importlib.import_module('ctr_storage_' + name).ctr_storage_drivers()\n"
        "driver = info.factory(DriverContext(f'{root}/storage/{name}', f'{root}/run'))\n"
        "unpack._save_accounts = lambda *_: os.kill(os.getpid(), 9)\n"
        "store = ContentStore(f'{root}/content')\n"
        "unpack.unpack(store, store.resolve('x'), driver, name, state_root=root)\n"
    )
    command = [sys.executable, "-c", script, place.root, place.name]
    assert subprocess.run(command, check=False).returncode == -9
    assert place.keys() == {f"unpack-{image.top[7:]}"}
    place.unpack(image)
    assert place.keys() == {image.top}


_UNPACKER = """
import importlib, sys
from ctr.drivers import DriverContext
from ctr.images import layers
from ctr.images.accounts import accounts
from ctr.images.base import ensure_base
from ctr.images.store import ContentStore
from ctr.images.unpack import unpack
root, name = sys.argv[1:]
(info,) = importlib.import_module("ctr_storage_" + name).ctr_storage_drivers()
driver = info.factory(DriverContext(f"{root}/storage/{name}", f"{root}/run"))
applied = []
original = layers.apply
def apply(*arguments, **keywords):
    applied.append(1)
    return original(*arguments, **keywords)
layers.apply = apply
store = ContentStore(f"{root}/content")
top = unpack(store, ensure_base(store), driver, name, state_root=root)
print(top, len(applied))
"""


def test_many_at_once_make_and_unpack_base_once(place: Place) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _UNPACKER, place.root, place.name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    results = [process.communicate()[0].split() for process in processes]
    image = place.store.resolve("base")
    assert {top for top, _ in results} == {image.top}
    assert sum(int(count) for _, count in results) == len(image.layers) == 2
    assert place.keys() == set(image.chain_ids)
    assert len(place.store.entries()) == 1
    assert place.store.gc() == []


@pytest.mark.parametrize("link", ["/../../../../../../../../../../SECRET", "SECRET", "passwd"])
def test_accounts_come_from_inside(place: Place, tmp_path: Path, link: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    target = link.replace("SECRET", str(tmp_path / "secret"))
    image = add(place.store, tar({"etc/passwd": target, "etc/group/": b""}))
    place.unpack(image)
    assert accounts(place.root, image.top) == (b"", b"")


def test_accounts_are_bounded(place: Place) -> None:
    with pytest.raises(ImageError, match="/etc/passwd: more than 1048576 bytes"):
        place.unpack(add(place.store, tar({"etc/passwd": bytes((1 << 20) + 1)})))
    assert place.keys() == set()


@pytest.mark.parametrize("busybox", [None, ""])
def test_base(place: Place, tmp_path: Path, busybox: str | None) -> None:
    """Made of busybox where the machine has it, and of its other tools."""
    make_base(place.store, busybox=busybox)
    image = place.store.resolve("base")
    other = ContentStore(str(tmp_path / "other"))
    make_base(other, busybox=busybox)
    assert other.resolve("base") == image
    assert ensure_base(place.store) == image
    assert image.config["config"]["Cmd"] == ["/bin/sh"]
    assert len(image.layers) == 2
    top = place.unpack(image)
    tree = place.tree(top)
    assert {mtime for _, _, _, mtime, _ in tree.values()} == {0}
    assert {owner for _, owner, _, _, _ in tree.values()} == {0}
    assert tree["tmp"][0] == stat.S_IFDIR | 0o1777
    assert tree["var/run"][4] == "../run"
    assert accounts(place.root, top)[0].startswith(b"root:x:0:0:")
    (mount,) = place.driver.prepare("run", top, _options())
    fd = kernel.mount_detached(mount)
    script = """
        set -e
        cat /etc/hosts | grep -q localhost
        echo "$(id -u) $(hostname | wc -l) $(echo a b | awk '{print $2}') $(echo x | sed s/x/y/)"
        ls -l /bin/sh >/dev/null; ip link >/dev/null; sleep 0; true
    """
    run = (
        "import os, sys\nos.fchdir(int(sys.argv[1]))\nos.chroot('.')\n"
        "os.execve('/bin/sh', ['sh', '-c', sys.argv[2]], {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin'})"
    )
    try:
        result = subprocess.run(
            [sys.executable, "-c", run, str(fd), script],
            pass_fds=[fd],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(fd)
        place.driver.remove("run")
    assert (result.stdout, result.stderr, result.returncode) == ("0 1 b y\n", "", 0)


def _options() -> Any:
    from ctr.models import SnapshotOptions

    return SnapshotOptions()


def test_accounts_file_is_private_json(place: Place) -> None:
    image = add(place.store, LOWER)
    place.unpack(image)
    path = f"{place.root}/accounts/{image.top[7:]}.json"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path) as file:
        assert set(json.load(file)) == {"passwd", "group"}
