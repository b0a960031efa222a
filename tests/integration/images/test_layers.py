"""Layers applied to real trees: as tar does where they are good, and never outside the root."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctr import kernel
from ctr.errors import ImageError, StateError
from ctr.images.compression import decompressed
from ctr.images.layers import Applied, apply
from ctr.images.tar import Limits
from ctr.models import Mount

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

DIR, LNK, SYM, CHR, BLK, FIFO = (
    tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)  # fmt: skip
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep


class Member(tarfile.TarInfo):
    data = b""


def item(name: str, data: bytes = b"", **values: Any) -> Member:
    """A member; a regular file unless ``type`` says otherwise."""
    made = Member(name)
    made.data, made.size = data, len(data)
    for key, value in values.items():
        setattr(made, key, value)
    return made


def tar(*members: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(member.data))
    return buffer.getvalue()


class World:
    """A root below a folder whose other content must never change."""

    def __init__(self, path: Path) -> None:
        self.outside = path
        self.root = path / "root"
        self.root.mkdir()
        (path / "victim").mkdir()
        (path / "victim" / "file").write_bytes(b"precious")
        (path / "secret").write_bytes(b"secret")
        self.before = self.seen()

    def seen(self) -> dict[str, tuple[Any, ...]]:
        """Everything outside of the root, and what could be changed of it."""
        found: dict[str, tuple[Any, ...]] = {}
        for folder, folders, files in os.walk(self.outside):
            if folder == str(self.outside):
                folders.remove("root")
            for name in [*folders, *files]:
                path = os.path.join(folder, name)
                status = os.lstat(path)
                found[path] = (status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns)
        found["content"] = ((self.outside / "secret").read_bytes(),)
        return found

    def apply(self, *members: Member, **limits: int) -> Applied:
        return self.apply_bytes(tar(*members), **limits)

    def apply_bytes(self, data: bytes, **limits: int) -> Applied:
        fd = kernel.mount_detached(Mount("bind", str(self.root)))
        opened = len(os.listdir("/proc/self/fd"))
        try:
            return apply(fd, decompressed(io.BytesIO(data)), Limits(**limits), name="layer x")
        finally:
            assert len(os.listdir("/proc/self/fd")) == opened
            os.close(fd)
            assert self.seen() == self.before

    def names(self) -> set[str]:
        found: set[str] = set()
        for folder, folders, files in os.walk(self.root):
            found.update(
                os.path.relpath(os.path.join(folder, name), self.root) for name in folders + files
            )
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def attributes(path: str) -> dict[str, tuple[Any, ...]]:
    """All that can be said of each file of a tree, its content and attributes included."""
    found = {}
    first: dict[int, str] = {}
    for folder, folders, files in sorted(os.walk(path)):
        for name in sorted([*folders, *files]):
            whole = os.path.join(folder, name)
            status = os.lstat(whole)
            inside = os.path.relpath(whole, path)
            content: Any = None
            if stat.S_ISREG(status.st_mode):
                with open(whole, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(whole)
            found[inside] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev,
                status.st_nlink, first.setdefault(status.st_ino, inside), content,
                {key: os.getxattr(whole, key, follow_symlinks=False)
                 for key in os.listxattr(whole, follow_symlinks=False)},
            )  # fmt: skip
    return found


def test_a_good_layer_is_what_tar_makes_of_it(world: World, tmp_path: Path) -> None:
    source = tmp_path / "root" / "source"
    (source / "d" / "deep").mkdir(parents=True)
    (source / "file").write_bytes(os.urandom(700_000))
    (source / "hard").hardlink_to(source / "file")
    (source / "link").symlink_to("/etc/../nowhere")
    (source / "d" / ("n" * 200)).write_bytes(b"long")
    (source / os.fsdecode(b"\xff")).write_bytes(b"")
    (source / "caps").write_bytes(b"program")
    os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(source / "disk", 0o600 | stat.S_IFBLK, os.makedev(8, 300))
    os.mkfifo(source / "fifo", 0o640)
    with open(source / "sparse", "wb") as file:
        for at in (0, 300_000, 1_000_000):
            file.seek(at)
            file.write(b"data")
        file.truncate(1_300_000)
    for number, path in enumerate(sorted(source.rglob("*"))):
        os.lchown(path, 1000 + number, 70_000 + number)
        os.utime(path, ns=(0, 10**18 + number * 1_234_567_891), follow_symlinks=False)
    os.setxattr(source / "caps", "security.capability", CAPABILITY)
    os.setxattr(source / "d", "user.note", b"\0\xffbinary")
    (source / "file").chmod(0o6751)
    (source / "d").chmod(0o3700)
    (source / "d" / "deep").chmod(0o000)
    command = ["tar", "-c", "--xattrs", "--xattrs-include=*", "--format=posix", "--sparse"]
    data = subprocess.run(
        [*command, "-C", str(source), "."], stdout=subprocess.PIPE, check=True
    ).stdout
    expected = tmp_path / "root" / "expected"
    expected.mkdir()
    subprocess.run(
        ["tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", expected],
        input=data,
        check=True,
    )
    world.root = tmp_path / "root" / "actual"
    world.root.mkdir()
    world.before = world.seen()
    applied = world.apply_bytes(gzip.compress(data, 1))
    assert attributes(str(world.root)) == attributes(str(expected)) == attributes(str(source))
    assert applied.size == len(data)
    assert (world.root / "sparse").stat().st_blocks == (expected / "sparse").stat().st_blocks
    assert os.stat(world.root).st_mtime_ns == os.stat(source).st_mtime_ns


def test_applying_twice_is_applying_once(world: World) -> None:
    layer = [
        item("d", type=DIR, mode=0o700, mtime=5),
        item("d/f", b"data", mode=0o4711, mtime=6),
        item("d/h", type=LNK, linkname="d/f"),
        item("l", type=SYM, linkname="d", mtime=7),
        item("n", type=CHR, devmajor=1, devminor=3, mode=0o666, mtime=8),
    ]
    world.apply(*layer)
    once = attributes(str(world.root))
    world.apply(*layer)
    assert attributes(str(world.root)) == once
    assert os.stat(world.root / "d").st_mtime == 5


# what an archive may try to get out


ESCAPES = {
    "absolute": [item("/etc/x", b"x")],
    "link, then file": [item("l", type=SYM, linkname="../victim"), item("l/x", b"x")],
    "absolute link, then file": [item("l", type=SYM, linkname="OUT/victim"), item("l/x", b"x")],
    "link over the file": [item("l", type=SYM, linkname="OUT/secret"), item("l", b"x")],
    "link, then a link through it": [
        item("l", type=SYM, linkname="OUT/victim"),
        item("l/x", type=SYM, linkname="y"),
    ],
    "link, then folder": [
        item("l", type=SYM, linkname="../victim"),
        item("l", type=DIR, mode=0o777),
        item("l/x", type=DIR),
    ],
    "two links": [
        item("a", type=SYM, linkname=".."),
        item("b", type=SYM, linkname="a/../victim"),
        item("b/x", b"x"),
    ],
    "magic link": [item("l", type=SYM, linkname="/proc/self/cwd"), item("l/x", b"x")],
    "link to a descriptor": [item("l", type=SYM, linkname="/proc/self/fd/0"), item("l/x", b"x")],
    "parent becomes a link": [
        item("d", type=DIR),
        item("d/a", b"a"),
        item("d", type=SYM, linkname="OUT/victim"),
        item("d/b", b"b"),
    ],
    "folder above becomes a link": [
        item("d/e/f", b"a"),
        item("d", type=SYM, linkname="OUT/victim"),
        item("d/e/g", b"b"),
    ],
    "link, then device": [
        item("l", type=SYM, linkname="OUT/victim"),
        item("l/x", type=BLK, devmajor=8, devminor=0),
    ],
    "link, then time": [item("l", type=SYM, linkname="OUT/victim"), item("l", type=DIR, mtime=1)],
    "hard link through a link": [
        item("l", type=SYM, linkname="OUT"),
        item("h", type=LNK, linkname="l/secret"),
        item("h", b"x"),
    ],
    "hard link to a link": [
        item("l", type=SYM, linkname="OUT/secret"),
        item("h", type=LNK, linkname="l"),
        item("h", b"x"),
    ],
    "whiteout through a link": [
        item("l", type=SYM, linkname="OUT"),
        item("l/.wh.secret"),
        item("l/.wh.victim"),
    ],
    "opaque through a link": [item("l", type=SYM, linkname="OUT/victim"), item("l/.wh..wh..opq")],
    "hard link outside": [item("h", type=LNK, linkname="../secret"), item("h", b"x")],
    "hard link absolute": [item("h", type=LNK, linkname="OUT/secret"), item("h", b"x")],
    "dot dot": [item("../victim/x", b"x")],
    "dot dot inside": [item("a/../../victim/x", b"x")],
    "dot dot at the end": [item("a/..", type=DIR, mode=0o777)],
    "whiteout of the root": [item(".wh..")],
    "whiteout of what is above": [item(".wh...")],
    "whiteout of nothing": [item(".wh.")],
    "whiteout folder": [item(".wh.a/b", b"x")],
    "root as a file": [item("./", b"x")],
    "root as a link": [item("/", type=SYM, linkname="OUT/victim")],
}


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("prepared", [False, True])
def test_no_way_out(world: World, name: str, prepared: bool) -> None:
    """Also when the links came with the layer below.  World checks the outside."""
    members = ESCAPES[name]
    for member in members:
        member.linkname = member.linkname.replace("OUT", str(world.outside))
    if prepared:
        for member in members[:-1]:
            try:
                world.apply(member)
            except ImageError:
                return
        members = members[-1:]
    with contextlib.suppress(ImageError):
        world.apply(*members)


REFUSED = {
    "hard link to nothing": [item("h", type=LNK, linkname="nothing")],
    "hard link into nothing": [item("h", type=LNK, linkname="no/thing")],
    "hard link to a folder": [item("d", type=DIR), item("h", type=LNK, linkname="d")],
    "hard link to the root": [item("h", type=LNK, linkname="./")],
    "hard link to what it replaces": [
        item("d/f", b"x"), item("d", type=LNK, linkname="d/f"),
    ],
    "overlay's whiteout": [item("x", type=CHR, devmajor=0, devminor=0)],
    "capabilities that are none": [
        item("x", b"x", pax_headers={"SCHILY.xattr.security.capability": "nonsense"})
    ],
    "attribute with NUL": [item("x", b"x", pax_headers={"SCHILY.xattr.user.a\0b": "x"})],
    "attribute without a name": [item("x", b"x", pax_headers={"SCHILY.xattr.user.": "x"})],
    "deep through links": [
        item("/".join("a" * 200), type=DIR),
        item("l", type=SYM, linkname="/".join("a" * 200)),
        item("l/" + "/".join("b" * 100) + "/x", b"x"),
    ],
    "10000 folders": [item("d/" * 10_000, type=DIR)],
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(world: World, name: str) -> None:
    with pytest.raises(ImageError, match="cannot apply layer x:") as caught:
        world.apply(*REFUSED[name])
    assert caught.value.message.count("\n") == 0
    assert len(caught.value.message) < 400


def test_deep_by_and_by(world: World) -> None:
    """Each name is short, because a link leads to where the last one ended."""
    path = "/".join("a" * 90)
    with pytest.raises(ImageError, match="folders"):
        world.apply(
            item(f"{path}/l", type=SYM, linkname="/"),
            item("l1", type=SYM, linkname=path),
            item(f"l1/{path}", type=DIR),
            item("l2", type=SYM, linkname=f"l1/{path}"),
            item(f"l2/{path}", type=DIR),
        )
    world.apply(item(".wh.a"), item(".wh.l1"), item(".wh.l2"))  # what is there can be removed
    assert world.names() == set()


def test_limits(world: World) -> None:
    bomb = gzip.compress(tar(item("big", bytes(32 << 20))), 1)
    with pytest.raises(ImageError, match="more than 1048576 bytes unpacked"):
        world.apply_bytes(bomb, size=1 << 20)
    assert sum(path.stat().st_size for path in world.root.iterdir()) <= 1 << 20
    with pytest.raises(ImageError, match="more than 10 entries"):
        world.apply(*(item(str(number)) for number in range(20)), entries=10)


def test_the_entry_is_named_safely(world: World) -> None:
    with pytest.raises(ImageError) as caught:
        world.apply(item("evil\n\x1b[31m", type=LNK, linkname="gone"))
    assert caught.value.message == (
        r"cannot apply layer x: entry 'evil\n\x1b[31m': a hard link to 'gone', which is not there"
    )


def test_no_space_is_not_the_layer_s_fault(world: World) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", world.root], check=True)
    try:
        with pytest.raises(StateError, match="No space left"):
            world.apply(item("big", bytes(2 << 20)))
    finally:
        subprocess.run(["umount", world.root], check=True)


# what a layer means


def test_replacing(world: World) -> None:
    world.apply(
        item("file", b"old", mode=0o600),
        item("folder/old", b"old"),
        item("link", type=SYM, linkname="folder"),
        item("other", type=SYM, linkname="nowhere"),
        item("merged", type=DIR, mode=0o700),
        item("merged/kept", b"kept"),
        item("hard1", b"hard"),
        item("hard2", type=LNK, linkname="hard1"),
    )
    world.apply(
        item("file", type=DIR),
        item("folder", b"now a file"),
        item("link", b"now a file"),
        item("other", type=DIR),
        item("merged", type=DIR, mode=0o755),
        item("merged/new", b"new"),
        item("hard1", b"changed"),
    )
    assert world.names() == {
        "file", "folder", "link", "other", "merged", "merged/kept", "merged/new", "hard1", "hard2"
    }  # fmt: skip
    assert (world.root / "file").is_dir()
    assert (world.root / "folder").read_bytes() == b"now a file"
    assert (world.root / "other").is_dir()
    assert not (world.root / "link").is_symlink()
    assert stat.S_IMODE((world.root / "merged").stat().st_mode) == 0o755
    assert (world.root / "hard2").read_bytes() == b"hard"


def test_of_duplicates_the_last_wins(world: World) -> None:
    world.apply(
        item("a", b"first"),
        item("a", type=SYM, linkname="b"),
        item("a", b"last", mode=0o640),
        item("d", type=DIR, mode=0o700, mtime=1),
        item("d/x", b"x"),
        item("d", type=DIR, mode=0o711, mtime=2),
    )
    assert (world.root / "a").read_bytes() == b"last"
    assert stat.S_IMODE((world.root / "d").stat().st_mode) == 0o711
    assert (world.root / "d").stat().st_mtime == 2
    assert (world.root / "d" / "x").exists()


@pytest.mark.parametrize("target", ["../run", "/run", "../../../run"])
def test_a_folder_over_a_link_goes_through_it(world: World, target: str) -> None:
    world.apply(item("run", type=DIR, mode=0o700), item("var/run", type=SYM, linkname=target))
    world.apply(
        item("var", type=DIR),
        item("var/run", type=DIR, mode=0o755, mtime=9),
        item("var/run/a", b"a"),
    )
    world.apply(item("var/run/lock/b", b"b"))
    assert os.readlink(world.root / "var" / "run") == target
    assert (world.root / "run" / "a").read_bytes() == b"a"
    assert (world.root / "run" / "lock" / "b").read_bytes() == b"b"
    assert stat.S_IMODE((world.root / "run").stat().st_mode) == 0o755
    assert (world.root / "run").stat().st_mtime == 9


def test_folders_that_are_missing_or_something_else(world: World) -> None:
    world.apply(item("file", b"x"), item("loop", type=SYM, linkname="loop"))
    old = os.umask(0o077)
    try:
        world.apply(item("new/folder/x", b"x"), item("file/x", b"x"), item("loop/x", b"x"))
    finally:
        os.umask(old)
    for name in ("new", "new/folder", "file", "loop"):
        status = (world.root / name).lstat()
        assert stat.S_ISDIR(status.st_mode)
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o755, 0, 0)


def test_times_of_folders_that_only_change_inside(world: World) -> None:
    world.apply(item("d", type=DIR, mtime=1), item("d/e", type=DIR, mtime=2), item("d/e/f", b"x"))
    world.apply(item("d/e/g", b"x"), item("d/.wh.nothing"))
    world.apply(item("d/e/.wh.f"))
    assert (world.root / "d").stat().st_mtime == 1
    assert (world.root / "d" / "e").stat().st_mtime == 2
    assert world.names() == {"d", "d/e", "d/e/g"}


def test_whiteouts(world: World) -> None:
    world.apply(
        item("file", b"x"),
        item("folder/deep/x", b"x"),
        item("link", type=SYM, linkname="file"),
        item("kept", b"x"),
    )
    applied = world.apply(
        item(".wh.file"), item(".wh.folder"), item(".wh.link"), item("no/such/.wh.x"),
        item(".wh..wh.plnk/1.2", b"aufs"), item(".wh..wh.aufs", b"aufs"),
    )  # fmt: skip
    assert world.names() == {"kept"}
    assert applied.entries == 6


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_spares_what_its_own_layer_made(world: World, first: bool) -> None:
    world.apply(item("f", b"old"), item("d/old", b"old"), item("d/sub/old", b"old"))
    whiteouts = [item(".wh.f"), item(".wh.d")]
    made = [item("f", b"new"), item("d", type=DIR), item("d/new", b"new")]
    world.apply(*(whiteouts + made if first else made + whiteouts))
    assert world.names() == {"f", "d", "d/new"}
    assert (world.root / "f").read_bytes() == b"new"


@pytest.mark.parametrize("place", range(5))
def test_opaque_wherever_it_stands(world: World, place: int) -> None:
    world.apply(
        item("d/old", b"old"),
        item("d/sub/old", b"old"),
        item("d/gone/old", b"old"),
        item("l", type=SYM, linkname="d"),
    )
    members = [
        item("d", type=DIR, mtime=3),
        item("d/new", b"new"),
        item("d/sub/new", b"new"),  # no entry for d/sub
        item("l/alias", b"new"),
    ]
    members.insert(place, item("d/.wh..wh..opq"))
    world.apply(*members)
    assert world.names() == {"d", "d/new", "d/sub", "d/sub/new", "d/alias", "l"}
    assert (world.root / "d").stat().st_mtime == 3


def test_opaque_through_a_link(world: World) -> None:
    world.apply(item("d/old", b"old"), item("l", type=SYM, linkname="d"))
    world.apply(item("d/new", b"new"), item("l/.wh..wh..opq"))
    assert world.names() == {"d", "d/new", "l"}


def test_attributes_that_are_dropped(world: World) -> None:
    keys = [
        "trusted.overlay.opaque", "trusted.x", "user.overlay.opaque", "security.selinux",
        "system.posix_acl_access", "security.ima", "user.kept",
    ]  # fmt: skip
    headers = {f"SCHILY.xattr.{key}": "y" for key in keys}
    world.apply(
        item("f", b"x", pax_headers=headers), item("d", type=DIR, pax_headers=dict(headers))
    )
    assert os.listxattr(world.root / "f") == ["user.kept"]
    assert os.listxattr(world.root / "d") == ["user.kept"]


def test_setgid_folders_do_not_leak_their_group(world: World) -> None:
    world.apply(item("d", type=DIR, mode=0o2777, gid=7), item("d/f", b"x"), item("d/n/f", b"x"))
    assert (world.root / "d" / "f").stat().st_gid == 0
    assert (world.root / "d" / "n").stat().st_gid == 0
    assert stat.S_IMODE((world.root / "d" / "n").stat().st_mode) == 0o755


# fuzz

_NAMES = st.sampled_from(
    ["a", "b", "a/b", "a/b/c", "b/a", "l", "l/x", "l/../x", "../x", "/a", "./", ".wh.a", "a/.wh.b",
     ".wh..wh..opq", "a/.wh..wh..opq", "l/.wh..wh..opq", ".wh...", "a/" * 300]
)  # fmt: skip
_TARGETS = st.sampled_from(
    ["a", "b", "..", "../..", "/", "OUT", "OUT/victim", "OUT/secret", "a/b", "l", "/proc/self/root",
     "../victim", "l/x", "secret", ""]
)  # fmt: skip
_TYPES = st.sampled_from([tarfile.REGTYPE, DIR, DIR, SYM, SYM, LNK, CHR, BLK, FIFO])


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(_NAMES, _TYPES, _TARGETS, st.integers(0, 0o7777), st.booleans()), max_size=12
    ),
    st.binary(max_size=4),
    st.integers(0, 20_000),
)
def test_any_archive_stays_inside(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[tuple[str, bytes, str, int, bool]],
    damage: bytes,
    at: int,
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    members, layers = [], []
    for name, type_, target, mode, split in entries:
        member = item(name, type=type_, mode=mode)
        member.linkname = target.replace("OUT", str(world.outside))
        if type_ == tarfile.REGTYPE:
            member.data, member.size = b"data", 4
        elif type_ in (CHR, BLK):
            member.devmajor, member.devminor = 1, mode
        members.append(member)
        if split:
            layers.append(tar(*members))
            members = []
    last = bytearray(tar(*members))
    last[at : at + len(damage)] = damage
    for layer in [*layers, bytes(last)]:
        with contextlib.suppress(ImageError):
            world.apply_bytes(layer)
