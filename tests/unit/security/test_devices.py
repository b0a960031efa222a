"""Device nodes and rules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.errors import CtrError, InvalidError, NotFoundError
from ctr.models import DeviceRule
from ctr.security import devices
from ctr.security.devices import DeviceSpec, find, host_devices, parse_device, parse_rule

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("/dev/fuse", DeviceSpec("/dev/fuse", "/dev/fuse", "rwm")),
        ("/dev/fuse:r", DeviceSpec("/dev/fuse", "/dev/fuse", "r")),
        ("/dev/sda:/dev/xvda", DeviceSpec("/dev/sda", "/dev/xvda", "rwm")),
        ("/dev/sda:/dev/xvda:mr", DeviceSpec("/dev/sda", "/dev/xvda", "mr")),
    ],
)
def test_device(text: str, spec: DeviceSpec) -> None:
    assert parse_device(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "fuse",
        ":",
        "/dev/a:",
        "/dev/a:b",
        "/dev/a:rr",
        "/dev/a:rx",
        "/dev/a:/dev/b:",
        "/dev/a:/dev/b:r:w",
        "/dev/a:/dev/b:/dev/c",
        "/dev/../etc/shadow",
        "/dev/a:/dev/../etc/passwd",
        "/dev/a:r:/dev/b",
        "/dev/a\0",
    ],
)
def test_bad_device(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_device(text)


@given(st.text(alphabet="/dev.:rwm\0 x", max_size=24))
def test_any_text_is_a_device_or_an_error(text: str) -> None:
    try:
        spec = parse_device(text)
    except CtrError:
        return
    for path in (spec.host_path, spec.path):
        assert path.startswith("/")
        assert ".." not in path.split("/")
    assert set(spec.access) <= set("rwm")


def test_rule() -> None:
    assert parse_rule("c 1:3 rwm") == DeviceRule(True, "c", 1, 3, "rwm")
    assert parse_rule("b *:* m") == DeviceRule(True, "b", -1, -1, "m")
    assert parse_rule("a *:* rwm") == DeviceRule(True, "a", -1, -1, "rwm")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c 1:3",
        "d 1:3 r",
        "c 1 r",
        "c 1:3 x",
        "c 1:3 rr",
        "c -1:3 r",
        "c 1:3 r\n",
        "c \u0661:3 r",
    ],
)
def test_bad_rule(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_rule(text)


def test_default_rules_are_runcs() -> None:
    rules = set(devices.DEFAULT_RULES)
    assert len(rules) == 12
    opened = {(rule.major, rule.minor) for rule in rules if rule.access == "rwm"}
    # null zero full random urandom, tty console ptmx, pts, tun
    assert opened == {
        (1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, -1), (10, 200)
    }  # fmt: skip
    assert {rule.type for rule in rules if rule.access == "m"} == {"b", "c"}
    assert {rule.type for rule in rules if rule.access == "rwm"} == {"c"}


def test_the_hosts_nodes_are_what_they_are_called() -> None:
    for node in devices.NODES:
        status = os.stat(node.host_path)
        assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (node.major, node.minor)


def test_find_one() -> None:
    (found,) = find(DeviceSpec("/dev/null", "/dev/mine", "r"))
    assert found[:5] == ("/dev/mine", "/dev/null", "c", 1, 3)
    assert found.mode & 0o666


def test_find_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(InvalidError):
            find(DeviceSpec(str(path), "/dev/x", "r"))
    with pytest.raises(NotFoundError):
        find(DeviceSpec(str(tmp_path / "none"), "/dev/x", "r"))


def test_host_devices() -> None:
    found = host_devices()
    paths = [device.path for device in found]
    assert "/dev/null" in paths
    assert len(paths) == len(set(paths))
    assert not [path for path in paths if path.startswith(("/dev/pts/", "/dev/shm/"))]
    assert "/dev/console" not in paths
    rules = devices.rules_of(found, "r")
    assert DeviceRule(True, "c", 1, 3, "r") in rules
