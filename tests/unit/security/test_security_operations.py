"""Security as operations, and the order that makes it so."""

from __future__ import annotations

from ctr.encoding import decode, encode
from ctr.models import IdMap
from ctr.operations import (
    BoundingSet,
    Capabilities,
    Identity,
    MakeNode,
    MaskPath,
    MountAt,
    MoveMount,
    NoNewPrivileges,
    OpenPath,
    OpenTree,
    ReadonlyPath,
    Seccomp,
    Symlink,
)
from ctr.program import Create, Phase, Slots, Verify
from ctr.security import operations, paths
from ctr.security.capabilities import DEFAULT
from ctr.security.devices import Device
from ctr.security.seccomp import Filter
from ctr.security.users import Identity as User

ROOT = User(0, 0, (0,), "/root")
WEB = User(1000, 1001, (1001, 4), "/srv")
FILTER = Filter(bytes(16), 4)


def test_order_without_no_new_privileges() -> None:
    """Loading the filter takes CAP_SYS_ADMIN, which goes after it."""
    assert operations.finish(ROOT, DEFAULT, seccomp=FILTER) == [
        Seccomp(bytes(16), 4),
        BoundingSet(DEFAULT),
        Identity(0, 0, (0,)),
        Capabilities(DEFAULT, DEFAULT),
    ]


def test_order_with_no_new_privileges() -> None:
    """The filter comes last: it need not allow what comes before it."""
    assert operations.finish(WEB, DEFAULT, seccomp=FILTER, no_new_privileges=True) == [
        NoNewPrivileges(),
        BoundingSet(DEFAULT),
        Identity(1000, 1001, (1001, 4)),
        Capabilities(0, 0),
        Seccomp(bytes(16), 4),
    ]


def test_unconfined() -> None:
    kinds = [type(one) for one in operations.finish(ROOT, DEFAULT)]
    assert kinds == [BoundingSet, Identity, Capabilities]


def test_nothing_is_inheritable_or_ambient() -> None:
    """CVE-2022-24769, CVE-2022-29162; and who is not root starts with nothing."""
    for user, held in ((ROOT, DEFAULT), (WEB, 0)):
        (caps,) = (one for one in operations.finish(user, DEFAULT) if isinstance(one, Capabilities))
        assert (caps.effective, caps.permitted) == (held, held)
        assert (caps.inheritable, caps.ambient) == (0, 0)


def test_masks_use_the_hosts_null() -> None:
    """CVE-2025-31133: what covers a path is not taken from the container."""
    slots = Slots()
    first, *rest = operations.masks(slots)
    assert isinstance(first, OpenPath)
    assert first.phase == Phase.SETUP
    assert (first.path, first.verify, first.major, first.minor) == (
        "/dev/null",
        Verify.CHAR_DEVICE,
        1,
        3,
    )
    masked = [one for one in rest if isinstance(one, MaskPath)]
    assert [one.path for one in masked] == list(paths.masked())
    assert {one.null for one in masked} == {first.slot}
    assert [one.path for one in rest if isinstance(one, ReadonlyPath)] == list(paths.READONLY)


def test_masks_of_ones_own() -> None:
    _, *rest = operations.masks(Slots(), ["/proc/x"], [])
    assert [one.describe() for one in rest] == ["mask /proc/x"]


def test_dev() -> None:
    made = operations.dev(Slots())
    plain = Create.PLAIN_DIRECTORY  # a /dev of the image's that is a link is refused
    assert made[0] == MountAt("tmpfs", "/dev", ("mode=0755", "size=65536k"), 0x22, plain)
    nodes = {one.path: (one.major, one.minor) for one in made if isinstance(one, MakeNode)}
    assert nodes == {
        "/dev/null": (1, 3),
        "/dev/zero": (1, 5),
        "/dev/full": (1, 7),
        "/dev/random": (1, 8),
        "/dev/urandom": (1, 9),
        "/dev/tty": (5, 0),
    }
    assert {one.mode for one in made if isinstance(one, MakeNode)} == {0o20666}
    assert Symlink("/dev/ptmx", "pts/ptmx") in made
    mounts = {one.target: one for one in made if isinstance(one, MountAt)}
    assert set(mounts) == {"/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"}
    assert mounts["/dev/pts"].options == ("newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    assert mounts["/dev/shm"].options == ("mode=1777", "size=67108864")
    for path in ("/dev/shm", "/dev/mqueue"):
        assert mounts[path].attributes == 0x2 | 0x4 | 0x8  # nosuid, nodev, noexec


def test_dev_in_a_user_namespace_binds_the_hosts_nodes() -> None:
    slots = Slots()
    made = operations.dev(slots, user_namespace=True, gid_map=(IdMap(0, 100000, 65536),))
    assert not [one for one in made if isinstance(one, MakeNode)]
    opened = {one.slot: one.path for one in made if isinstance(one, OpenTree)}
    moved = {one.target: opened[one.slot] for one in made if isinstance(one, MoveMount)}
    assert moved == {f"/dev/{name}": f"/dev/{name}" for name in
                     ("null", "zero", "full", "random", "urandom", "tty")}  # fmt: skip
    assert {one.phase for one in made if isinstance(one, OpenTree)} == {Phase.PREPARE}
    assert len(slots.names) == 6


def test_dev_without_a_group_tty() -> None:
    made = operations.dev(Slots(), user_namespace=True, gid_map=(IdMap(0, 100000, 1),))
    (pts,) = (one for one in made if isinstance(one, MountAt) and one.fstype == "devpts")
    assert "gid=5" not in pts.options


def test_dev_with_more_devices() -> None:
    fuse = Device("/dev/fuse", "/dev/fuse", "c", 10, 229, 0o600, 1, 2)
    disk = Device("/dev/xvda", "/dev/sda", "b", 8, 0, 0o660)
    mine = Device("/dev/null", "/dev/null", "c", 1, 3, 0o600)
    made = operations.dev(Slots(), extra=(fuse, disk, mine))
    nodes = {one.path: one for one in made if isinstance(one, MakeNode)}
    assert nodes["/dev/fuse"] == MakeNode("/dev/fuse", 0o20600, 10, 229, 1, 2)
    assert nodes["/dev/xvda"].mode == 0o60660
    assert nodes["/dev/null"].mode == 0o20600
    assert len(nodes) == 8


def test_dev_with_the_hosts_ipc() -> None:
    made = operations.dev(Slots(), host_ipc=True)
    opened = {one.slot: one.path for one in made if isinstance(one, OpenTree)}
    moved = {one.target: opened[one.slot] for one in made if isinstance(one, MoveMount)}
    assert moved == {"/dev/shm": "/dev/shm"}
    (queues,) = (one for one in made if isinstance(one, MountAt) and one.fstype == "mqueue")
    assert queues.target == "/dev/mqueue"


def test_dev_with_the_hosts_ipc_in_a_user_namespace() -> None:
    made = operations.dev(Slots(), host_ipc=True, user_namespace=True)
    assert not [one for one in made if isinstance(one, MountAt) and one.fstype == "mqueue"]


def test_operations_are_encodable() -> None:
    slots = Slots()
    made = [
        *operations.dev(slots, user_namespace=True, host_ipc=True),
        *operations.masks(slots),
        *operations.finish(WEB, DEFAULT, seccomp=FILTER, no_new_privileges=True),
    ]
    made.sort(key=lambda one: one.phase)
    assert decode(encode(made))[0] == made
    assert all(one.describe() for one in made)
