"""The same program on both launchers: the same container, the same report of a fault."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import struct
from typing import TYPE_CHECKING, cast

import pytest

from ctr import encoding
from ctr import kernel as linux
from ctr import operations as ops
from ctr.launcher import build, protocol, reference
from ctr.program import NO_SLOT, Create, Phase, Verify

from . import harness
from .programs import FREE, NAMESPACES, NULL, ROOT, make_rootfs, program

if TYPE_CHECKING:
    from pathlib import Path

    from ctr.program import Operation

    from .harness import LauncherModule, Result

pytestmark = pytest.mark.root

# Everything that a process can tell about how it was started.
OBSERVE = """
echo == mounts; cat /proc/self/mountinfo
echo == status; grep -E '^(Uid|Gid|Groups|NS[a-z]*|Sig[A-P]|Shd|Cap|NoNew|Secc|Spec|Umask|Cpus)' \
    /proc/self/status
echo == limits; cat /proc/self/limits
echo == namespaces; for n in cgroup ipc mnt net pid time user uts; do
    readlink /proc/self/ns/$n; done
echo == descriptors; for n in /proc/1/fd/*; do echo $n; readlink $n; done
echo == process; sed 's/^1 .*) . //;s/^\\([0-9-]* [0-9-]* [0-9-]* [0-9-]*\\) .*/\\1/' /proc/1/stat
echo == cgroup; cat /proc/self/cgroup
echo == oom; cat /proc/self/oom_score_adj
echo == names; hostname; cat /proc/sys/kernel/domainname
echo == sysctl; cat /proc/sys/kernel/msgmax
echo == keys; cat /proc/keys
echo == links; ifconfig -a
echo == where; pwd; readlink /proc/1/cwd /proc/1/root /proc/1/exe
echo == environment; cat /proc/self/environ
echo == tree; find / -xdev | sort | while read -r f; do stat -c '%n %F %a %u:%g %t:%T' "$f"; done
for f in /dev/* /mnt/*; do stat -c '%n %F %a %u:%g %t:%T' "$f"; done
echo == masked; cat /etc/secret; ls /srv
"""

FILTER = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)  # allow all
USER = (
    ops.WriteIdMaps("0 100000 65536\n", "0 200000 65536\n"),
    ops.Identity(0, 0, ()).at(Phase.JOIN),
)
KEEP = 0xA80425FB & ~(1 << 24)  # what containers usually keep

PLAIN: tuple[Operation, ...] = ()
FULL = (
    ops.OpenTree(FREE, "ROOTFS/srv"),
    ops.MountAttr(FREE, linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID),
    ops.OpenTree(FREE + 1, "ROOTFS/etc/secret", 1),
    ops.OomScore(100),
    ops.MountAt("tmpfs", "/dev", ("mode=755", "size=64k"), linux.MOUNT_ATTR_NOSUID),
    ops.MountAt("tmpfs", "/mnt", ("mode=1777",)),
    ops.MountAt("mqueue", "/dev/mqueue"),
    ops.MoveMount(FREE, "/mnt/tree"),
    ops.MoveMount(FREE + 1, "/link/file", Create.FILE),
    ops.MakeDirectory("/mnt/a/b", 0o2711, 3, 4),
    ops.Symlink("/dev/fd", "/proc/self/fd"),
    ops.MaskPath("/etc/secret", NULL),
    ops.MaskPath("/srv", NULL),
    ops.MaskPath("/proc/kcore", NULL),
    ops.MaskPath("/proc/acpi", NULL),
    ops.MaskPath("/proc/none", NULL),
    ops.ReadonlyPath("/proc/sys"),
    ops.ReadonlyPath("/mnt/tree"),
    ops.RootAttr(linux.MOUNT_ATTR_RDONLY),
    ops.Sysctl("kernel/msgmax", "4321"),
    ops.Rlimit(7, 100, 200),
    ops.Rlimit(4, 0, 0),
    ops.Hostname("both"),
    ops.Domainname("same"),
    ops.SessionKeyring("ctr-both"),
    ops.LinkUp("lo"),
    ops.Umask(0o027),
    ops.Chdir("/mnt/a/b"),
    ops.NoNewPrivileges(),
    ops.Seccomp(FILTER),
    ops.BoundingSet(KEEP),
    ops.Identity(0, 0, (10, 20)),
    ops.Capabilities(KEEP, KEEP),
)
DEVICES = (
    ops.MakeNode("/dev/zero", stat.S_IFCHR | 0o666, 1, 5),
    ops.MakeNode("/dev/full", stat.S_IFCHR | 0o620, 1, 7, 3, 5),
)
PROGRAMS = {
    "plain": (PLAIN, NAMESPACES),
    "full": (FULL + DEVICES, NAMESPACES | linux.CLONE_NEWCGROUP),
    "user": (
        (*USER, *FULL),
        NAMESPACES | linux.CLONE_NEWUSER | linux.CLONE_NEWCGROUP,
    ),
    "few namespaces": (PLAIN, linux.CLONE_NEWNS | linux.CLONE_NEWPID),
    "time": (
        (
            ops.Unshare(linux.CLONE_NEWTIME),
            ops.WriteFile("/proc/self/timens_offsets", b"monotonic 9 0\n", Verify.PROCFS),
        ),
        NAMESPACES,
    ),
    "another user": (
        (
            ops.BoundingSet(KEEP),
            ops.Identity(11, 12, (13,)),
            ops.Capabilities(KEEP, KEEP, 1 << 10, 1 << 10),
        ),
        NAMESPACES,
    ),
}


@pytest.fixture
def launchers(request: pytest.FixtureRequest) -> tuple[LauncherModule, LauncherModule]:
    """The Python launcher and the compiled one, from the sources."""
    try:
        build.compiler()
    except FileNotFoundError as error:
        pytest.skip(f"there is nothing to compare with: {error}")
    compiled = request.getfixturevalue("compiled")
    return cast("LauncherModule", reference), cast("LauncherModule", compiled)


@pytest.fixture
def rootfs(tmp_path: Path) -> str:
    return str(tmp_path / "rootfs")


def fresh(rootfs: str) -> None:
    """Make the root file system as if nobody had used it."""
    shutil.rmtree(rootfs, ignore_errors=True)
    make_rootfs(rootfs)
    os.symlink("/dangling/folder", f"{rootfs}/link")
    os.symlink("loop", f"{rootfs}/loop")
    os.chmod(rootfs, 0o777)  # a container's own root may write to it too


def here(operations: tuple[Operation, ...], rootfs: str) -> list[Operation]:
    """The operations with this test's root file system."""
    return [
        ops.OpenTree(op.slot, op.path.replace("ROOTFS", rootfs), op.recursive)
        if isinstance(op, ops.OpenTree)
        else op
        for op in operations
    ]


def launch(module: LauncherModule, operations: list[Operation], folder: Path) -> Result:
    folder.mkdir()
    return harness.launch(module, operations, str(folder), flags=encoding.TRACE)


def observations(text: str) -> dict[str, list[str]]:
    """What was seen, by section, without what differs from start to start."""
    # Namespaces and pipes by whether they are the host's, not by number.
    hosts = {os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    text = re.sub(
        r"(\w+):\[\d+\]", lambda found: f"{found[1]} {'host' if found[0] in hosts else ''}", text
    )
    sections = {}
    for section in text.split("== ")[1:]:
        name, *lines = section.splitlines()
        sections[name] = lines
    # Mount and device ids are counters.
    sections["mounts"] = [re.sub(r"^\d+ \d+ \d+:\d+", "", line) for line in sections["mounts"]]
    # A key's number, and how many users it has.
    sections["keys"] = sorted(
        {re.sub(r"^\w+ (\S+)\s+\d+ (.*?:).*", r"\1 \2", line) for line in sections["keys"]}
    )
    return sections


@pytest.mark.parametrize("name", PROGRAMS)
def test_both_make_the_same_container(
    launchers: tuple[LauncherModule, ...], rootfs: str, tmp_path: Path, name: str
) -> None:
    if name == "time" and not os.path.exists("/proc/self/ns/time"):
        pytest.skip("this kernel has no time namespaces")
    extra, flags = PROGRAMS[name]
    whole = program(
        rootfs,
        ("sh", "-c", OBSERVE),
        *here(extra, rootfs),
        flags=flags,
        environment=("PATH=/bin", "A=1", "A=2"),
    )
    seen = []
    for number, module in enumerate(launchers):
        fresh(rootfs)
        result = launch(module, whole, tmp_path / f"run{number}")
        assert result.failure is None, (module, result.failure)
        assert result.exit_code == 0
        seen.append((observations(result.stdout.decode()), result.stderr, result.kinds))
    (sections, errors, kinds), other = seen
    for section, lines in sections.items():
        assert lines == other[0][section], section
    assert errors == other[1]
    assert kinds == other[2]
    assert len(sections) == OBSERVE.count("==")
    assert all(sections[section] for section in ("mounts", "status", "limits", "namespaces"))


HUGE = 2**40
FAULTS: dict[str, Operation] = {
    "open what is missing": ops.OpenPath(FREE, "/none", os.O_RDONLY),
    "open what does not verify": ops.OpenPath(FREE, "/dev", os.O_PATH, Verify.CHAR_DEVICE, 1, 3),
    "open below a file": ops.OpenPath(FREE, "/proc/self/status/x", os.O_RDONLY),
    "clone no mount": ops.OpenTree(FREE, "/none"),
    "no such file system": ops.NewMount(FREE, "nonesuch", "", ()),
    "no such option": ops.NewMount(FREE, "tmpfs", "", ("nonesuch",)),
    "no such value": ops.NewMount(FREE, "tmpfs", "", ("size=x",)),
    "an option too long": ops.NewMount(FREE, "tmpfs", "", ("size=" + "1" * 300,)),
    "no such slot": ops.NewMount(FREE, "overlay", "", (), 0, ("lowerdir+=77",)),
    "overlay of nothing": ops.NewMount(FREE, "overlay", "", ("lowerdir=/none",)),
    "bad mount attributes": ops.NewMount(FREE, "tmpfs", "", (), 1 << 29),
    "stage nowhere": ops.StageMount(FREE, "overlay", "/none", "lowerdir=a"),
    "stage nothing": ops.StageMount(FREE, "overlay", "/tmp", "lowerdir=/none"),
    "attributes of an empty slot": ops.MountAttr(FREE, 1),
    "attributes that are none": ops.MountAttr(ROOT, 1 << 40),
    "idmap by no namespace": ops.MountAttr(ROOT, 0, userns=ROOT),
    "unshare what is none": ops.Unshare(1),
    "write what is missing": ops.WriteFile("/none", b"x"),
    "write what does not verify": ops.WriteFile("/dev/null", b"x", Verify.PROCFS),
    "write what is refused": ops.WriteFile("/proc/self/oom_score_adj", b"x", Verify.PROCFS),
    "write elsewhere": ops.WriteFile("/proc/self/oom_score_adj", b"x", Verify.CGROUP),
    "maps that are none": ops.WriteIdMaps("x", "y"),
    "an oom score that is none": ops.OomScore(5000),
    "join by an empty slot": ops.JoinCgroup(FREE),
    "join by a folder": ops.JoinCgroup(ROOT),
    "propagation that is none": ops.Propagation(linux.MS_SHARED | linux.MS_PRIVATE),
    "attach an empty slot": ops.AttachRoot(FREE),
    "mount no such type": ops.MountAt("nonesuch", "/mnt"),
    "mount nowhere": ops.MountAt("tmpfs", "/none/x", create=Create.NOTHING),
    "mount below a file": ops.MountAt("tmpfs", "/srv/file/x"),
    "mount a folder on a file": ops.MountAt("tmpfs", "/srv/file"),
    "mount on a loop": ops.MountAt("tmpfs", "/loop"),
    "mount behind a magic link": ops.MountAt("tmpfs", "/proc/self/cwd"),
    "mount on a name too long": ops.MountAt("tmpfs", "/" + "x" * 300),
    "move an empty slot": ops.MoveMount(FREE, "/mnt"),
    "move no mount": ops.MoveMount(NULL, "/mnt"),
    "a folder on a file": ops.MakeDirectory("/srv/file"),
    "a folder below a file": ops.MakeDirectory("/srv/file/x"),
    "a folder that dangles": ops.MakeDirectory("/link"),
    "a folder of nobody": ops.MakeDirectory("/new", 0o755, -1, 0),
    "a folder behind a magic link": ops.MakeDirectory("/proc/self/root/x"),
    "a node that exists": ops.MakeNode("/srv/file", stat.S_IFCHR, 1, 3),
    "a node of no type": ops.MakeNode("/new", 0o170000, 1, 3),
    "a node at the root": ops.MakeNode("/", stat.S_IFCHR, 1, 3),
    "a link that exists": ops.Symlink("/srv/file", "x"),
    "a link to nothing": ops.Symlink("/new", ""),
    "mask by an empty slot": ops.MaskPath("/srv/file", FREE),
    "mask behind a magic link": ops.MaskPath("/proc/self/exe", NULL),
    "read-only behind a magic link": ops.ReadonlyPath("/proc/self/root"),
    "root attributes that are none": ops.RootAttr(HUGE),
    "pivot again": ops.PivotRoot(),
    "no such sysctl": ops.Sysctl("kernel/nonesuch", "1"),
    "a sysctl that is a folder": ops.Sysctl("kernel", "1"),
    "a sysctl's value": ops.Sysctl("kernel/msgmax", "x"),
    "a sysctl elsewhere": ops.Sysctl("../1/comm", "x"),
    "limits the wrong way round": ops.Rlimit(7, 2, 1),
    "no such limit": ops.Rlimit(99, 1, 1),
    "a hostname too long": ops.Hostname("x" * 100),
    "a domain name too long": ops.Domainname("x" * 100),
    "a keyring without a name": ops.SessionKeyring(""),
    "a keyring of the kernel's": ops.SessionKeyring(".x"),
    "no such interface": ops.LinkUp("eth9"),
    "an interface too long": ops.LinkUp("x" * 40),
    "streams again": ops.Stdio(0, 0),
    "no such folder": ops.Chdir("/none"),
    "a file as folder": ops.Chdir("/srv/file"),
    "a folder outside": ops.Chdir("/proc/self/fd/3"),
    "an empty filter": ops.Seccomp(b""),
    "half an instruction": ops.Seccomp(b"\0" * 12),
    "a filter without an end": ops.Seccomp(b"\0" * 8),
    "a filter too long": ops.Seccomp(FILTER * 4097),
    "a filter's flags": ops.Seccomp(FILTER, 1 << 20),
    "nobody's uid": ops.Identity(-1, 0, ()),
    "nobody's gid": ops.Identity(0, 2**32 - 1, ()),
    "nobody's group": ops.Identity(0, 0, (-1,)),
    "capabilities without permission": ops.Capabilities(1, 0),
    "capabilities that do not exist": ops.Capabilities(1 << 60, 1 << 60),
    "ambient without inheritable": ops.Capabilities(1, 1, 0, 1),
    "oom file that is missing": ops.WatchOom("/none"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_both_report_the_same_fault(
    launchers: tuple[LauncherModule, ...], rootfs: str, tmp_path: Path, name: str
) -> None:
    bad = FAULTS[name]
    whole = program(rootfs, ("true",), bad)
    index = next(number for number, operation in enumerate(whole) if operation is bad)
    found = []
    for number, module in enumerate(launchers):
        fresh(rootfs)
        result = launch(module, whole, tmp_path / f"run{number}")
        assert result.failure is not None, (module, bad)
        traced = [event.a for event in result.events if event.kind == protocol.TRACE]
        found.append((result.failure.a, errno.errorcode.get(result.failure.b), traced))
    assert found[0] == found[1]
    assert found[0][0] == index
    assert found[0][2] == list(range(index + 1))


MISFITS: dict[str, list[Operation]] = {
    "nothing": [],
    "no exec": program("/", ("true",))[:-1],
    "no clone": [op for op in program("/", ("true",)) if not isinstance(op, ops.Clone)],
    "two clones": sorted(
        [ops.Clone(0), *program("/", ("true",))], key=lambda operation: operation.phase
    ),
    "after exec": [*program("/", ("true",)), ops.NoNewPrivileges()],
    "the child's on the parent's side": program("/", ("true",), ops.PivotRoot().at(Phase.PREPARE)),
    "the parent's on the child's side": program("/", ("true",), ops.OomScore(1).at(Phase.SETUP)),
    "the supervisor's in the child": program("/", ("true",), ops.WatchOom("/x").at(Phase.ROOT)),
    "the parent goes on after its end": [
        *program("/", ("true",))[:4],
        ops.OomScore(1),
        *program("/", ("true",))[4:],
    ],
    "no such slot": program("/", ("true",), ops.MoveMount(256, "/mnt")),
    "a slot below the first": program("/", ("true",), ops.JoinCgroup(NO_SLOT)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_both_refuse_a_program_of_a_wrong_shape(
    launchers: tuple[LauncherModule, ...], tmp_path: Path, name: str
) -> None:
    for number, module in enumerate(launchers):
        result = launch(module, MISFITS[name], tmp_path / f"run{number}")
        assert result.failure is not None, module
        assert result.failure.a == -1
        assert result.failure.text
        assert result.kinds == [protocol.FAILED, 0]  # before HELLO: nothing was done
