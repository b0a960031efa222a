"""Values as users write them."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr import mountspec, parse
from ctr.errors import InvalidError
from ctr.models import IdMap
from ctr.mountspec import MountSpec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", 512),
        ("1k", 1024),
        ("64m", 64 << 20),
        ("1.5G", 3 << 29),
        ("2gb", 2 << 30),
        ("-1", -1),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse.size(text, "--memory") == expected


@pytest.mark.parametrize("text", ["", "x", "12q", "1m2", "m", "0x10", "1e5"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(InvalidError, match="cannot use --memory"):
        parse.size(text, "--memory")


@given(st.text(max_size=20))
def test_parsers_raise_nothing_but_invalid_error(text: str) -> None:
    for function in (
        lambda: parse.size(text, "-m"),
        lambda: parse.nano_cpus(text),
        lambda: parse.cpuset(text, "--cpuset-cpus"),
        lambda: parse.throttle(text, "--device-read-bps"),
        lambda: parse.id_maps([text], "--uidmap"),
        lambda: parse.time_offset(text),
        lambda: parse.signal_number(text, "--stop-signal"),
        lambda: parse.check_name(text),
        lambda: parse.environment([text], [], {}),
        lambda: mountspec.parse_volume(text),
        lambda: mountspec.parse_mount(text),
        lambda: mountspec.parse_tmpfs(text),
    ):
        with contextlib.suppress(InvalidError):
            function()


def test_memory_has_a_least() -> None:
    with pytest.raises(InvalidError, match="the least is 6m"):
        parse.memory("1m", "--memory")
    assert parse.memory("-1", "--memory-swap") == -1


def test_cpus() -> None:
    assert parse.nano_cpus("0.5") == 500_000_000
    with pytest.raises(InvalidError, match="range"):
        parse.nano_cpus(str((os.cpu_count() or 1) + 1))


def test_environment(tmp_path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\nHOME\nEMPTY=\n  B=2=3\n")
    own = {"HOME": "/root", "X": "y"}
    assert parse.environment(["A=9", "X", "GONE"], [str(file)], own) == [
        "A=1",
        "HOME=/root",
        "EMPTY=",
        "B=2=3",
        "A=9",
        "X=y",
    ]
    assert parse.merge_environment(["A=1", "B=2"], ["A=3"]) == ["A=3", "B=2"]


def test_environment_file_errors(tmp_path) -> None:
    with pytest.raises(InvalidError, match="cannot read --env-file /none"):
        parse.environment([], ["/none"], {})
    file = tmp_path / "env"
    file.write_text("bad name=1\n")
    with pytest.raises(InvalidError, match="line 1"):
        parse.environment([], [str(file)], {})


def test_id_maps_and_offsets_and_signals() -> None:
    assert parse.id_maps(["0:100000:65536"], "--uidmap") == (IdMap(0, 100000, 65536),)
    assert parse.time_offset("boottime=-1.5") == ("boottime", -1_500_000_000)
    assert parse.signal_number("sigterm", "-s") == parse.signal_number("15", "-s") == 15
    assert parse.signal_number("RTMIN+3", "-s") == 37


def test_volume_flags() -> None:
    assert parse_volume("/a:/b") == MountSpec("bind", "/a", "/b", create=True)
    assert parse_volume("/a:/b/../c/:ro,rslave") == MountSpec(
        "bind", "/a", "/c", readonly=True, propagation="rslave", create=True
    )
    assert parse_volume("name:/b:nocopy") == MountSpec("volume", "name", "/b", copy=False)
    assert parse_volume("/b") == MountSpec("volume", "", "/b")
    assert parse_volume("./x:/b").source == os.path.abspath("x")


parse_volume = mountspec.parse_volume


@pytest.mark.parametrize(
    "text",
    ["/a:/", "/a:b", "/a:/b:wx", ":/b", "/a:", "/a:/b:ro:rw", "n/m:/b", "/a:/proc", "/x:/proc/1"],
)
def test_wrong_volumes(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_volume(text)


def test_mount_flags() -> None:
    assert mountspec.parse_mount("type=bind,src=/a,dst=/b,ro") == MountSpec(
        "bind", "/a", "/b", readonly=True
    )
    assert mountspec.parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700") == MountSpec(
        "tmpfs", "", "/t", size=1 << 20, mode=0o700
    )
    assert mountspec.parse_tmpfs("/t:size=1m,exec,mode=1777") == MountSpec(
        "tmpfs", "", "/t", size=1 << 20, mode=0o1777, exec=True
    )
    for text in (
        "type=bind,source=a,target=/b",
        "type=x,target=/b",
        "type=volume",
        "target=/b,foo=1",
    ):
        with pytest.raises(InvalidError):
            mountspec.parse_mount(text)


def test_merge_orders_and_names() -> None:
    asked = [parse_volume("vol:/data/sub"), parse_volume("/a:/data")]
    merged = mountspec.merge(("/image", "/data"), asked)
    assert [spec.target for spec in merged] == ["/data", "/image", "/data/sub"]
    assert merged[0].kind == "bind"
    assert merged[1].anonymous
    assert len(merged[1].source) == 64
    with pytest.raises(InvalidError, match="duplicate mount point"):
        mountspec.merge((), [parse_volume("/a:/x"), parse_volume("/b:/x")])
    with pytest.raises(InvalidError, match="image's volume"):
        mountspec.merge(("../x",), [])
