"""The order of a launch program, which is a security property, for any container."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr import operations as ops
from ctr.compiler import FILES, Inputs, compile_program
from ctr.images.config import ImageConfig
from ctr.models import Mount
from ctr.mountspec import MountSpec
from ctr.program import NO_SLOT, Phase
from ctr.security.seccomp import Filter
from ctr.security.users import Identity
from ctr.settle import Drivers, ImageFacts, settle
from ctr.spec import ContainerOptions
from ctr.start import namespace_requests
from ctr_namespaces.namespaces import open_driver

IMAGE = ImageConfig((), (), ("true",), "", "", (), {}, "", ())
NEWNS, NEWUSER = 0x00020000, 0x10000000


class Fence:
    """A control group driver: two hierarchies, one folder."""

    def launch(self, group, resources, slots, *, private):
        one, two = slots.new("one"), slots.new("two")
        opened = [ops.OpenPath(slot, f"/fence{slot}", 1) for slot in (one, two)]
        unshared = [ops.Unshare(0x02000000).at(Phase.JOIN)] if private else []
        return [*opened, ops.JoinCgroup(one), ops.JoinCgroup(two), *unshared]

    def mounts(self, group, slots, *, private, writable):
        return [ops.MountAt("cgroup", "/sys/fs/cgroup", (), 0 if writable else 1)]


targets = st.lists(st.sampled_from(["data", "a", "b", "run", "etc"]), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
mounts = st.lists(
    st.tuples(st.sampled_from(["bind", "tmpfs"]), st.just("/host"), targets, st.booleans()),
    unique_by=lambda mount: mount[2],
    max_size=4,
).map(lambda found: tuple(MountSpec(*mount) for mount in found))
options = st.fixed_dictionaries(
    {
        "mounts": mounts,
        "read_only": st.booleans(),
        "init": st.booleans(),
        "pid": st.sampled_from(["", "host", "container:other"]),
        "ipc": st.sampled_from(["", "host", "container:other"]),
        "uts": st.sampled_from(["", "host"]),
        "userns": st.sampled_from(["", "private", "path:/other/user"]),
        "cgroupns": st.sampled_from(["", "host"]),
        "network": st.sampled_from(["", "none", "host", "container:other"]),
        "ulimits": st.sampled_from([(), ("nofile=10",)]),
        "oom_score_adj": st.sampled_from([None, 100]),
        "time_offsets": st.sampled_from([(), (("boottime", 5),)]),
        "security_opt": st.sampled_from([(), ("no-new-privileges",)]),
    }
).map(lambda fields: ContainerOptions(**fields))  # type: ignore[arg-type]


def compiled(asked):
    spec = settle(
        "c" * 64,
        "name",
        ImageFacts("base", "sha256:1", "sha256:2", IMAGE),
        (),
        asked,
        Drivers("flat", "wire", "fence"),
        lambda reference: ("0" * 64, 42),
    )
    inputs = Inputs(
        spec=spec,
        root_mounts=[Mount("overlay", "overlay", ("lowerdir+=/layer",))],
        sources=["/host" if mount.kind == "bind" else "" for mount in spec.mounts],
        files={name: f"/state/{name}" for name in FILES},
        identity=Identity(5, 6, (6,), "/"),
        seccomp=Filter(b"\0" * 8, 0),
        namespaces=[
            ("namespaces", open_driver(kind), request)
            for kind, request in namespace_requests(spec).items()
        ],
        cgroup=Fence(),  # type: ignore[arg-type]
        storage_plugin="storage-flat",
        cgroup_plugin="cgroups",
    )
    return spec, compile_program(inputs).operations


def places(program, *kinds):
    return [at for at, operation in enumerate(program) if isinstance(operation, kinds)]


@given(options)
def test_the_order(asked) -> None:
    spec, program = compiled(asked)

    # Phases follow each other, and every operation has its plugin.
    phases = [operation.phase for operation in program]
    assert phases == sorted(phases)
    assert all(operation.by for operation in program)

    # A slot is filled before it is used.
    filled = set()
    for operation in program:
        used = [
            value
            for field, value in operation.items()
            if field in ("slot", "userns", "cgroup", "null") and value != NO_SLOT
        ]
        if isinstance(operation, (ops.OpenPath, ops.OpenTree, ops.NewMount)):
            filled.update(used)
        assert filled.issuperset(used)

    # The parent opens what is the host's before it enters what is a container's.
    (clone,) = places(program, ops.Clone)
    joins = [at for at in places(program, ops.Setns) if program[at].flag != NEWNS]
    opens = places(program, ops.OpenPath, ops.OpenTree, ops.NewMount)
    assert all(at < join for join in joins for at in opens if at < clone)
    flags = [program[at].flag for at in joins]
    assert NEWUSER not in flags or flags[-1] == NEWUSER

    # In the child: the cgroup, the root, the mounts, the masks, the pivot.
    (root,) = places(program, ops.AttachRoot)
    (pivot,) = places(program, ops.PivotRoot)
    mounted = [at for at in places(program, ops.MountAt, ops.MoveMount, ops.MakeNode) if at > clone]
    covered = places(program, ops.MaskPath, ops.ReadonlyPath)
    assert clone < min(places(program, ops.JoinCgroup))
    assert max(places(program, ops.JoinCgroup)) < root < min(mounted)
    assert max(mounted) < min(covered)
    assert max(covered) < pivot
    assert [max(covered) < at < pivot for at in places(program, ops.RootAttr)] == [
        True
    ] * spec.read_only
    ordered = [program[at].target for at in mounted if hasattr(program[at], "target")]
    for mount in spec.mounts:
        inner = [at for at, target in enumerate(ordered) if target.startswith(mount.target + "/")]
        own = [at for at, target in enumerate(ordered) if target == mount.target]
        if not mount.target.startswith("/etc"):  # whose files come first
            assert all(own[-1] < at for at in inner)

    # What limits the command comes last, each after what needs more than it leaves.
    last = [type(operation) for operation in program if operation.phase is Phase.LAST]
    steps = [ops.BoundingSet, ops.Identity, ops.Capabilities]
    # Without no_new_privs loading a filter needs CAP_SYS_ADMIN; with it, nothing is left to do.
    steps.insert(3 if spec.no_new_privileges else 0, ops.Seccomp)
    steps = [ops.CloseDescriptors, *steps, *[ops.Init] * spec.init, ops.Exec]
    assert [kind for kind in last if kind in steps] == steps
    assert (
        max(places(program, ops.Sysctl, ops.Rlimit), default=0) < places(program, ops.Identity)[-1]
    )
    assert isinstance(program[-1], ops.Exec)


@pytest.mark.parametrize("point", [1, 2, 3])
def test_sync_points(point) -> None:
    _, program = compiled(ContainerOptions())
    a, b, c = places(program, ops.Sync)
    assert program[a - 1].opcode == ops.Clone.opcode
    assert b + 1 == places(program, ops.PivotRoot)[0]
    assert {program[at].phase for at in (a, b, c)} == {Phase.CLONED, Phase.SETUP, Phase.ROOT}
    assert [program[at].point for at in (a, b, c)][point - 1] == point


def test_a_user_may_replace_hosts_but_not_uncover_it() -> None:
    _, program = compiled(ContainerOptions(mounts=(MountSpec("bind", "/host", "/etc/hosts"),)))
    moved = [operation.target for operation in program if isinstance(operation, ops.MoveMount)]
    assert moved.count("/etc/hosts") == 1
    assert moved.count("/etc/hostname") == 1


def test_privileged_masks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctr.security.devices.host_devices", list)
    _, program = compiled(ContainerOptions(privileged=True))
    assert not places(program, ops.MaskPath, ops.ReadonlyPath)
    (sysfs,) = [one for one in program if isinstance(one, ops.MountAt) and one.fstype == "sysfs"]
    assert not sysfs.attributes & 1
