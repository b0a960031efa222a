"""A request and an image become one specification; policy is checked on that."""

from __future__ import annotations

import pytest

from ctr.errors import CtrError, InvalidError
from ctr.images.config import ImageConfig
from ctr.models import IdMap, Resources
from ctr.mountspec import MountSpec
from ctr.security import capabilities
from ctr.settle import Drivers, ImageFacts, settle
from ctr.spec import ContainerOptions

ID = "c0ffee" + "0" * 58
IMAGE = ImageConfig(
    env=("PATH=/bin", "A=image"),
    entrypoint=(),
    cmd=("sh",),
    workdir="/srv",
    user="daemon",
    volumes=("/data",),
    labels={"of": "image", "both": "image"},
    stop_signal="SIGINT",
    exposed=(),
)


def settled(*command, image=IMAGE, **options):
    """The specification; the container ``other`` runs as PID 42."""

    def pid_of(reference):
        assert reference == "other"
        return "0123", 42

    return settle(
        ID,
        "name",
        ImageFacts("base", "sha256:1", "sha256:2", image),
        command,
        ContainerOptions(**options),
        Drivers("flat", "wire", "fence"),
        pid_of,
    )


@pytest.mark.parametrize(
    ("entrypoint", "given", "command", "argv"),
    [
        ((), None, (), ("sh",)),
        ((), None, ("ls", "-l"), ("ls", "-l")),
        (("init",), None, (), ("init", "sh")),
        (("init",), None, ("ls",), ("init", "ls")),
        (("init",), ("mine",), (), ("mine",)),
        (("init",), ("mine",), ("ls",), ("mine", "ls")),
        (("init",), ("",), ("ls",), ("ls",)),
    ],
)
def test_what_is_executed(entrypoint, given, command, argv) -> None:
    image = IMAGE._replace(entrypoint=entrypoint)
    assert settled(*command, image=image, entrypoint=given).argv == argv


@pytest.mark.parametrize("entrypoint", [None, ("",)])
def test_nothing_to_execute(entrypoint) -> None:
    with pytest.raises(InvalidError, match="no command specified"):
        settled(image=IMAGE._replace(cmd=()), entrypoint=entrypoint)


def test_the_user_overrides_the_image() -> None:
    spec = settled()
    assert (spec.user, spec.workdir, spec.stop_signal) == ("daemon", "/srv", "SIGINT")
    assert set(spec.environment) == {"PATH=/bin", "A=image", f"HOSTNAME={ID[:12]}"}
    assert [(mount.kind, mount.target, mount.anonymous) for mount in spec.mounts] == [
        ("volume", "/data", True)
    ]
    spec = settled(
        user="1:2",
        workdir="/a/../b",
        stop_signal="SIGHUP",
        environment=("A=mine", "B=2"),
        labels=(("both", "mine"),),
        mounts=(MountSpec("bind", "/host", "/data"),),
    )
    assert (spec.user, spec.workdir, spec.stop_signal) == ("1:2", "/b", "SIGHUP")
    assert set(spec.environment) == {"PATH=/bin", "A=mine", "B=2", f"HOSTNAME={ID[:12]}"}
    assert spec.labels == {"of": "image", "both": "mine"}
    assert [(mount.kind, mount.target) for mount in spec.mounts] == [("bind", "/data")]


def test_default_namespaces() -> None:
    modes = {kind: mode for kind, (mode, _) in settled().namespaces.items()}
    assert modes.pop("user") == "host"
    assert modes.pop("time") == "host"
    assert set(modes) == {"pid", "network", "ipc", "mount", "uts", "cgroup"}
    assert set(modes.values()) == {"private"}


@pytest.mark.parametrize(
    ("options", "kind", "result"),
    [
        ({"pid": "host"}, "pid", ("host", "")),
        ({"pid": "container:other"}, "pid", ("path", "/proc/42/ns/pid")),
        ({"ipc": "shareable"}, "ipc", ("private", "")),
        ({"network": "container:other"}, "network", ("path", "/proc/42/ns/net")),
        ({"network": "path:/run/netns/x"}, "network", ("path", "/run/netns/x")),
        ({"network": "none"}, "network", ("private", "")),
        ({"uts": "path:/x"}, "uts", ("path", "/x")),
        ({"uid_map": (IdMap(0, 5, 1),)}, "user", ("private", "")),
        ({"time_offsets": (("boottime", 1),)}, "time", ("private", "")),
    ],
)
def test_namespace_modes(options, kind, result) -> None:
    assert settled(**options).namespaces[kind] == result


def test_networks() -> None:
    assert settled().network == "bridge"
    assert settled().network_driver == "wire"
    for network in ("none", "host"):
        assert settled(network=network).network_driver == ""
    assert settled(network="container:other").network == "container:0123"


def test_id_maps() -> None:
    spec = settled(userns="private")
    assert spec.uid_map == spec.gid_map == (IdMap(0, 100000, 65536),)
    one, two = (IdMap(0, 7, 1),), (IdMap(0, 8, 1),)
    assert settled(uid_map=one).gid_map == one
    assert (settled(uid_map=one, gid_map=two).uid_map, settled(gid_map=two).uid_map) == (one, two)
    assert settled().uid_map == ()


def test_swap_is_as_much_again_as_memory() -> None:
    def swap(**resources):
        return settled(resources=Resources(**resources)).resources.memory_swap

    assert swap(memory=100) == 200
    assert swap(memory=100, memory_swap=-1) == -1
    assert swap(memory=100, memory_swap=100) == 100
    assert swap(memory=-1) is None
    assert swap() is None


def test_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "own_capabilities", lambda: capabilities.ALL)
    assert settled(privileged=True).capabilities == capabilities.ALL
    assert settled(privileged=True).seccomp == "unconfined"
    assert settled().seccomp == "default"
    spec = settled(security_opt=("no-new-privileges", "seccomp=unconfined"))
    assert (spec.no_new_privileges, spec.seccomp) == (True, "unconfined")


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"workdir": "srv"}, "absolute"),
        ({"pid": "contaner:x"}, "not private, host"),
        ({"pid": "container:"}, "not private, host"),
        ({"userns": "container:other"}, "not private or host"),
        ({"network": "path:net"}, "not private, host"),
        ({"uts": "host", "hostname": "box"}, "conflicts"),
        ({"uts": "host", "domainname": "lan"}, "conflicts"),
        ({"hostname": "x" * 65}, "64 characters"),
        ({"userns": "private", "privileged": True}, "incompatible"),
        ({"userns": "host", "uid_map": (IdMap(0, 1, 1),)}, "shares a user namespace"),
        ({"uid_map": (IdMap(1, 1, 1),)}, "does not map id 0"),
        ({"security_opt": ("apparmor=x",)}, "apparmor"),
        ({"security_opt": ("nonsense",)}, "unknown"),
        ({"security_opt": ("no-new-privileges=maybe",)}, "unknown"),
        ({"cgroup_parent": "/a/../b"}, r"holds \.\."),
        ({"sysctls": ("net.ipv4.ip_forward=1",), "network": "host"}, "net.ipv4.ip_forward"),
        ({"cap_add": ("CAP_NONSENSE",)}, "NONSENSE"),
        ({"ulimits": ("nofile=2:1",)}, "nofile"),
        ({"mounts": (MountSpec("tmpfs", "", "/a"), MountSpec("tmpfs", "", "/a"))}, "/a"),
    ],
)
def test_what_is_refused(options, cause) -> None:
    with pytest.raises(CtrError, match=cause) as caught:
        settled(**options)
    assert caught.value.message.startswith("cannot ")
