"""Images made to break out: what an engine does with them must not touch the host."""

from __future__ import annotations

import copy
import json
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from . import hostile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Arena, Result

pytestmark = pytest.mark.root

#: How a link may try to get at a folder of the host.
WAYS = {
    "absolute": "{}",
    "up": "../../../../../../../../../..{}",
    "magic": "/proc/self/root{}",
    "host's init": "/proc/1/root{}",
}


@pytest.fixture
def outside(tmp_path) -> Iterator[str]:
    """A folder of the host that must stay as it is, with what an engine may look for in it."""
    folder = tmp_path / "outside"
    for name in ("sub", "etc", "self"):
        (folder / name).mkdir(parents=True)
    for name in ("secret", "null", "resolv.conf", "sub/secret"):
        (folder / name).write_text("the host's secret")
    before = hostile.listing(str(folder))
    yield str(folder)
    assert hostile.listing(str(folder)) == before


def check_refused(result: Result, *words: str) -> None:
    """One clear error, and no container."""
    assert result.status == 125, result
    first, *hints = result.err.splitlines()
    assert first.startswith("ctr: cannot ")
    assert all(word in first for word in words), first
    assert all(hint.startswith("hint: ") for hint in hints), result.err


# -- links where the engine mounts, makes and writes ------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["dev", "proc", "sys"])
def test_kernel_file_systems_go_to_no_link(arena, outside, path, way) -> None:
    """CVE-2026-41579, CVE-2019-19921: what is mounted on a link can be led elsewhere later."""
    image = arena.load(hostile.link(path, WAYS[way].format(outside)))
    check_refused(arena.run(image, "true"), f"/{path}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["etc", "etc/hosts", "etc/resolv.conf", "work", "mnt", "vol"])
def test_links_where_files_are_mounted(arena, outside, tmp_path, path, way) -> None:
    """CVE-2021-30465, CVE-2024-45310: inside, such a link means a place inside, or nothing."""
    image = arena.load(hostile.link(path, WAYS[way].format(outside)))
    mine = tmp_path / "mine"
    mine.mkdir()
    result = arena.run(
        "-w", "/work/sub", "-v", f"{mine}:/mnt/new", "-v", "/vol/sub", "--tmpfs", "/mnt/tmp", image,
        "sh", "-c", f"cat /{path}/secret /{path}/sub/secret {outside}/secret; touch /mnt/new/made",
    )  # fmt: skip
    assert "the host's secret" not in result.out
    if way in ("absolute", "up"):
        assert result.status == 0, result
        assert os.listdir(mine) == ["made"]
    else:
        assert result.status in (0, 125), result
        assert result.status == 0 or result.err.startswith("ctr: cannot "), result


def test_a_link_inside_is_followed_inside(arena, tmp_path) -> None:
    """The links of ordinary images go on to work: /var/run is /run."""
    image = arena.load(
        hostile.folder("var"), hostile.folder("run"), hostile.link("var/run", "/run")
    )
    (tmp_path / "socket").write_text("it works")
    result = arena.run("-v", f"{tmp_path}/socket:/var/run/x.sock", image, "cat", "/run/x.sock")
    assert result == (0, "it works", "")


@pytest.mark.parametrize("path", ["proc", "sys"])
def test_masks_cannot_be_led_astray(arena, path) -> None:
    """CVE-2023-27561: a mount changes where the link to procfs leads, between it and its masks."""
    image = arena.load(
        hostile.folder("a"), hostile.folder("real"),
        hostile.link("a/link", "/real"), hostile.link(path, "a/link"),
    )  # fmt: skip
    check_refused(arena.run("--tmpfs", "/a", image, "ls", "/real"), f"/{path}")


@pytest.mark.parametrize("target", ["/p", "/p/sys", "/p/self"])
def test_no_mount_on_procfs_by_a_link(arena, tmp_path, target) -> None:
    """CVE-2019-16884: -v on /proc is refused by name; a link is another name."""
    image = arena.load(hostile.link("p", "/proc"))
    check_refused(arena.run("-v", f"{tmp_path}:{target}", image, "true"), target)
    check_refused(arena.run("--tmpfs", target, image, "true"), target)


def test_a_link_that_others_swap(arena, tmp_path, outside) -> None:
    """CVE-2021-30465: a container swaps a link while another one is mounted there."""
    image = arena.load(hostile.folder("v"))
    shared = tmp_path / "shared"
    (shared / "a").mkdir(parents=True)
    swap = (
        f"echo; while :; do ln -sfn /a /v/a/t; rm -f /v/a/t; mkdir /v/a/t; rmdir /v/a/t;"
        f" ln -s ../../../../../../../..{outside} /v/a/t; rm -f /v/a/t; done"
    )
    swapper = arena.spawn("run", "--rm", "--name", "swapper", "--network", "none",
                          "-v", f"{shared}:/v", image, "sh", "-c", swap)  # fmt: skip
    try:
        assert swapper.stdout.readline() == b"\n"
        for _ in range(12):
            result = arena.run("-v", f"{shared}:/v", "-v", f"{tmp_path}:/v/a/t/deep", image, "true")
            assert result.status in (0, 125), result
            assert result.status == 0 or result.err.startswith("ctr: cannot "), result
    finally:
        arena("rm", "-f", "swapper")
        swapper.communicate(timeout=20)


def test_masks_use_the_hosts_null_device(arena, tmp_path) -> None:
    """CVE-2025-31133: /dev/null of the image or of a volume is something else."""
    image = arena.load(
        hostile.folder("dev"), hostile.link("dev/null", "/secret"), hostile.member("secret")
    )
    os.symlink("/secret", tmp_path / "null")
    for flags in ([], ["-v", f"{tmp_path}:/dev"]):
        result = arena.run(*flags, image, "stat", "-c", "%t:%T", "/proc/timer_list", "/proc/keys")
        assert result.out.split() == ["1:3", "1:3"], result


# -- what an image says -----------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["-u", "1000"], ["-u", "1000:1000"]])
def test_a_number_is_no_name(arena, flags) -> None:
    """CVE-2016-3697, CVE-2026-46680: a user or group with the name "1000" is root."""
    image = arena.load(
        hostile.member("etc/passwd", "1000:x:0:7::/:/bin/sh\n"),
        hostile.member("etc/group", "1000:x:0:\nwheel:x:7:1000\n"),
        User="1000:1000",
    )
    result = arena.run(*flags, image, "sh", "-c", "id -u; id -g; id -G")
    group = "0" if flags == ["-u", "1000"] else "1000"
    assert result.out.split() == ["1000", group, group], result


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("passwd", "root:x:0:0::/:/bin/sh\n" * 100_000),
        ("group", "".join(f"g{gid}:x:{gid}:user\n" for gid in range(1, 5000))),
    ],
)
def test_accounts_are_bounded(arena, file, text) -> None:
    image = arena.load(
        hostile.member("etc/passwd", "user:x:1:1::/:/bin/sh\n"), hostile.member(f"etc/{file}", text)
    )
    check_refused(arena.run("-u", "user", image, "true"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("volume", ["link", "path"])
def test_a_volume_takes_nothing_from_the_host(arena, outside, way, volume) -> None:
    """CVE-2022-23648: the content of an image's VOLUME is copied from where its path leads."""
    path = WAYS[way].format(outside)
    image = arena.load(
        hostile.link("link", path), Volumes={"link" if volume == "link" else path: {}}
    )
    result = arena.run(image, "sh", "-c", f"cat /link/secret {outside}/secret; true")
    assert "secret" not in result.out
    assert result.status in (0, 125), result
    assert arena("volume", "ls", "-q").out == ""


@pytest.mark.parametrize("entry", ["/proc/self/exe", "/script"])
def test_the_launcher_as_entry_point(arena, entry) -> None:
    """CVE-2019-5736: the image asks to execute what is executing."""
    image = arena.load(
        hostile.member("script", "#!/proc/self/exe\n", mode=0o755), Entrypoint=[entry], Cmd=["x"]
    )
    result = arena.run(image)
    assert result.status not in (0, 137), result


# -- layers -----------------------------------------------------------------------------------

LAYERS = {
    "dot dot": [hostile.member("../../../../../../../../../OUT/new", "x")],
    "hard link outside": [hostile.hard_link("h", "../../../../../../../OUT/secret")],
    "hard link through a link": [
        hostile.link("l", "OUT"), hostile.hard_link("h", "l/secret"), hostile.member("h", "x"),
    ],
    "10000 folders": [hostile.folder("d/" * 10_000)],
    "a whiteout that is a device": [hostile.node("x", 0, 0)],
    "a terabyte of holes": [
        hostile.member(
            "holes", b"1\n0\n0\n".ljust(512, b"\0"),
            pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                         "GNU.sparse.name": "holes", "GNU.sparse.realsize": str(1 << 40)},
        ),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_hostile_layers(arena, outside, tmp_path, name) -> None:
    """Refused with one error, whether by taking the image in or by unpacking it."""
    members = []
    for info, data in LAYERS[name]:
        changed = copy.copy(info)
        changed.name = info.name.replace("OUT", outside)
        changed.linkname = info.linkname.replace("OUT", outside)
        members.append((changed, data))
    (tmp_path / "layer.tar").write_bytes(hostile.tar(*members))
    before = used(arena)
    result = arena("image", "import", str(tmp_path / "layer.tar"), "evil")
    if result.status == 0:
        check_refused(arena.run("evil", "true"))
        assert arena("image", "rm", "evil").status == 0
    else:
        assert result.status == 1
        assert result.err.startswith("ctr: cannot import ")
        assert "Traceback" not in result.err
    assert used(arena) == before


def used(arena: Arena) -> object:
    """What ctr counts, and what lies where a layer is taken in and unpacked."""
    folders = [f"{arena.root}/storage/{name}" for name in os.listdir(f"{arena.root}/storage")]
    folders.append(f"{arena.root}/content/ingest")
    names = [sorted(os.listdir(folder)) for folder in folders]
    return json.loads(arena("system", "df", "--format", "json").out), names


def test_links_of_a_layer_stay_inside(arena, outside) -> None:
    """CVE-2014-9356: the second file goes through the first, a link."""
    image = arena.load(
        hostile.link("l", outside),
        hostile.member("l/secret", "mine"),
        hostile.member("l/new", "mine"),
    )
    assert arena.run(image, "cat", "/l/secret", "/l/new").out == "minemine"


def test_devices_of_an_image_are_powerless(arena) -> None:
    """CVE-2014-6408: a node that the image brings opens nothing."""
    image = arena.load(hostile.node("disk", 240, 0, tarfile.BLKTYPE), hostile.node("mem", 1, 1))
    result = arena.run(image, "sh", "-c", "probe read /disk; probe read /mem")
    assert result.out.split() == ["EPERM", "EPERM"], result
