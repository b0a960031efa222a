"""What is particular to each type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ctr.errors import InvalidError
from ctr.models import IdMap, NamespaceRequest
from ctr.operations import (
    Domainname,
    Hostname,
    Identity,
    LinkUp,
    Propagation,
    Unshare,
    WriteFile,
    WriteIdMaps,
)
from ctr.program import Phase, Slots, Verify
from ctr_namespaces import DRIVERS, ctr_namespaces
from ctr_namespaces.namespaces import open_driver
from ctr_namespaces.probe import probe_namespace

if TYPE_CHECKING:
    from pathlib import Path

    from ctr.drivers import NamespaceParts

MAP = (IdMap(0, 100000, 65536),)


def parts(name: str, request: NamespaceRequest) -> NamespaceParts:
    return open_driver(name).parts(request, Slots())


def test_the_user_namespace_is_first() -> None:
    assert next(iter(ctr_namespaces())).name == "user"
    assert len(DRIVERS) == 8


def test_flags_are_the_kernels() -> None:
    flags = {name: open_driver(name).flag for name, *_ in DRIVERS}
    # from linux/sched.h
    assert flags == {
        "user": 0x10000000,
        "mount": 0x00020000,
        "pid": 0x20000000,
        "network": 0x40000000,
        "ipc": 0x08000000,
        "uts": 0x04000000,
        "cgroup": 0x02000000,
        "time": 0x00000080,
    }


def test_mount_is_private_and_nothing_else() -> None:
    made = parts("mount", NamespaceRequest("private"))
    assert made.operations == (Propagation(0x4000 | 0x40000),)
    for mode in ("host", "path"):
        with pytest.raises(InvalidError):
            parts("mount", NamespaceRequest(mode, path="/proc/1/ns/mnt"))


def test_network_has_its_loopback_up() -> None:
    assert parts("network", NamespaceRequest("private")).operations == (LinkUp("lo"),)
    joined = parts("network", NamespaceRequest("path", path="/proc/1/ns/net"))
    assert LinkUp("lo") not in joined.operations


def test_uts_names() -> None:
    request = NamespaceRequest("private", hostname="web-1", domainname="example.org")
    made = parts("uts", request)
    assert made.operations == (Hostname("web-1"), Domainname("example.org"))
    assert {operation.phase for operation in made.operations} == {Phase.ROOT}


@pytest.mark.parametrize("mode", ["host", "path"])
def test_uts_names_of_a_shared_namespace(mode: str) -> None:
    request = NamespaceRequest(mode, path="/proc/1/ns/uts")
    with pytest.raises(InvalidError, match="conflicting options: hostname and the UTS mode"):
        parts("uts", request._replace(hostname="web"))
    with pytest.raises(InvalidError, match="conflicting options: domainname and the UTS mode"):
        parts("uts", request._replace(domainname="web"))


@pytest.mark.parametrize("name", ["a b", "-web", "web.", "a/b", "a\n", "x" * 65, "ü"])
def test_uts_bad_names(name: str) -> None:
    with pytest.raises(InvalidError):
        parts("uts", NamespaceRequest("private", hostname=name))


def test_user_maps() -> None:
    uids = (IdMap(0, 100000, 1000), IdMap(1000, 500000, 1))
    made = parts("user", NamespaceRequest("private", uid_map=uids, gid_map=MAP))
    assert made.operations == (
        WriteIdMaps("0 100000 1000\n1000 500000 1\n", "0 100000 65536\n"),
        Identity(0, 0, ()).at(Phase.JOIN),
    )


@pytest.mark.parametrize(
    "maps",
    [
        (),
        (IdMap(1, 100000, 10),),  # no root
        (IdMap(0, 100000, 0),),
        (IdMap(0, -1, 10),),
        (IdMap(0, 100000, 10), IdMap(5, 200000, 10)),  # inside overlaps
        (IdMap(0, 100000, 10), IdMap(10, 100005, 10)),  # outside overlaps
        (IdMap(0, 2**32 - 2, 2),),
        tuple(IdMap(2 * n, 100000 + 2 * n, 1) for n in range(341)),
    ],
)
def test_user_bad_maps(maps: tuple[IdMap, ...]) -> None:
    with pytest.raises(InvalidError):
        parts("user", NamespaceRequest("private", uid_map=maps, gid_map=MAP))
    with pytest.raises(InvalidError):
        parts("user", NamespaceRequest("private", uid_map=MAP, gid_map=maps))


@pytest.mark.parametrize("mode", ["host", "path"])
def test_user_maps_of_a_shared_namespace(mode: str) -> None:
    with pytest.raises(InvalidError, match="not the container's own"):
        parts("user", NamespaceRequest(mode, path="/proc/1/ns/user", uid_map=MAP))


def test_user_join_becomes_root_there() -> None:
    made = parts("user", NamespaceRequest("path", path="/proc/1/ns/user"))
    assert made.operations[-1] == Identity(0, 0, ()).at(Phase.JOIN)


@pytest.mark.parametrize(
    ("monotonic", "boottime", "text"),
    [
        (0, 7_000_000_001, b"boottime 7 1\n"),
        (5_000_000_000, -1_500_000_000, b"monotonic 5 0\nboottime -2 500000000\n"),
    ],
)
def test_time_offsets_are_written_before_the_clone(
    monotonic: int, boottime: int, text: bytes
) -> None:
    request = NamespaceRequest("private", monotonic_ns=monotonic, boottime_ns=boottime)
    made = parts("time", request)
    assert made.operations == (
        Unshare(0x80),
        WriteFile("/proc/self/timens_offsets", text, Verify.PROCFS),
    )
    assert {operation.phase for operation in made.operations} == {Phase.PREPARE}


def test_time_without_offsets_writes_nothing() -> None:
    assert parts("time", NamespaceRequest("private")).operations == (Unshare(0x80),)


def test_time_offsets_of_a_shared_namespace() -> None:
    with pytest.raises(InvalidError, match="not the container's own"):
        parts("time", NamespaceRequest("host", boottime_ns=1))


def proc(root: Path, name: str, maximum: str = "100\n") -> str:
    """A /proc of a kernel that has the type ``name`` and no other."""
    (root / "self/ns").mkdir(parents=True)
    (root / "sys/user").mkdir(parents=True)
    (root / "self/ns" / open_driver(name).proc_name).touch()
    (root / "sys/user/max_user_namespaces").write_text(maximum)
    return str(root)


@pytest.mark.parametrize("name", [driver[0] for driver in DRIVERS if driver[0] != "time"])
def test_probe(name: str, tmp_path: Path) -> None:
    root = proc(tmp_path, name)
    assert probe_namespace(name, root).ok
    absent = probe_namespace("ipc" if name != "ipc" else "uts", root)
    assert not absent.ok
    assert absent.reason.startswith("this kernel has no")


def test_probe_of_forbidden_user_namespaces(tmp_path: Path) -> None:
    refused = probe_namespace("user", proc(tmp_path, "user", "0\n"))
    assert not refused.ok
    assert "max_user_namespaces" in refused.reason
    assert refused.hint


def test_probe_of_time_needs_the_offsets_file(tmp_path: Path) -> None:
    root = proc(tmp_path, "time")
    assert not probe_namespace("time", root).ok
    (tmp_path / "self/timens_offsets").touch()
    assert probe_namespace("time", root).ok
