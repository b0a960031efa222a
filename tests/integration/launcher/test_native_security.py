"""The compiled launcher against hostile roots, and what a container sees of it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from typing import TYPE_CHECKING

import pytest

from ctr.launcher import build, protocol
from ctr.operations import (
    BoundingSet,
    Capabilities,
    Chdir,
    Identity,
    Init,
    MakeDirectory,
    MakeNode,
    MaskPath,
    MountAt,
    MoveMount,
    NewMount,
    NoNewPrivileges,
    OpenPath,
    OpenTree,
    ReadonlyPath,
    Rlimit,
    RootAttr,
    StageMount,
    Symlink,
    Sysctl,
    Umask,
    WriteIdMaps,
)
from ctr.program import Create, Phase, Verify

from .harness import FREE_SLOT, FRESH, NEWUSER, NULL_SLOT, Result, container, launch, read_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

WAIT = "echo ready; while :; do sleep 0.02; done"
NET_BIND = 1 << 10


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result
    return result.stdout.decode().splitlines()


# -- what a container sees ----------------------------------------------------------------


@pytest.mark.parametrize("last", [[], [Init()]], ids=["plain", "init"])
def test_only_the_three_streams_are_open(run, last):
    script = "for n in $(seq 0 300); do [ -e /proc/$$/fd/$n ] && echo $n; done; :"
    assert lines(run("sh", "-c", script, last=last)) == ["0", "1", "2"]


def test_streams_are_pipes_that_can_be_reopened(run):
    script = "for n in 0 1 2; do readlink /proc/self/fd/$n; done; echo again >/proc/self/fd/1"
    *links, again = lines(run("sh", "-c", script))
    assert [link.partition(":")[0] for link in links] == ["pipe"] * 3
    assert again == "again"


def test_signals_and_session_are_as_a_shell_expects(run):
    fields = status_of(run)
    assert int(fields["SigBlk"], 16) == int(fields["SigIgn"], 16) == 0
    assert fields["NSsid"].split() == ["1"]
    assert fields["TracerPid"] == "0"


def test_argv_and_environment_are_the_programs(run):
    result = run(
        "sh", "-c", 'printf "%s\\n" "$0" "$@"; env', "a b", "", "c", environment=("A=1", "B=x y")
    )
    got = lines(result)
    assert got[:3] == ["a b", "", "c"]
    assert {"A=1", "B=x y"} <= set(got[3:])
    assert not any(line.startswith("CTR") for line in got)


def test_init_shows_nothing_of_the_host(begin):
    script = (
        "tr '\\0' ' ' </proc/1/cmdline; echo; cat /proc/1/environ; ls /proc/1/fd | wc -l; " + WAIT
    )
    cleaner = ["/bin/true", "secret"]
    with begin(
        "sh", "-c", script, last=[Init()], cleaner=cleaner, env={"TOKEN": "secret"}
    ) as running:
        assert running.start()
        seen = read_until(running.stdout, b"ready\n").decode().splitlines()
        assert [line.strip("\0 ") for line in seen] == ["ctr-launcher", "0", "ready"]
        with open(f"/proc/{running.child}/maps", encoding="ascii") as file:
            maps = file.read()
        assert "ctr-program" not in maps


def test_init_cannot_be_overwritten(begin):
    """CVE-2019-5736: /proc/1/exe is the way to the runtime's own file."""
    script = "(echo x >/proc/1/exe) 2>/dev/null || echo refused; " + WAIT
    with begin("sh", "-c", script, last=[Init()]) as running:
        assert running.start()
        assert read_until(running.stdout, b"ready\n") == b"refused\nready\n"
        exe = os.open(f"/proc/{running.child}/exe", os.O_RDONLY)
        seals = fcntl.fcntl(exe, fcntl.F_GET_SEALS)
        os.close(exe)
        wanted = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        assert seals & wanted == wanted


def test_child_is_not_dumpable_before_the_exec(begin):
    with begin("true") as running:
        owners = []
        running.start(lambda _, pid: owners.append(os.stat(f"/proc/{pid}/mem").st_uid))
        assert owners == [0, 0, 0]
    with begin("true", flags=FRESH | NEWUSER, **mapped()) as running:
        running.start(lambda _, pid: owners.append(os.stat(f"/proc/{pid}/mem").st_uid))
        assert owners[-1] == 0  # a dumpable one would belong to the container's root


# -- identity -----------------------------------------------------------------------------


def mapped() -> dict:
    """A user namespace whose root is 100000 outside."""
    ids = "0 100000 65536\n"
    return {"cloned": [WriteIdMaps(ids, ids)], "join": [Identity(0, 0, ())]}


def test_user_namespace(compiled, root, run_dir):
    for folder, _, files in os.walk(root):
        for name in (folder, *(os.path.join(folder, file) for file in files)):
            os.lchown(name, 100000, 100000)
    script = "id -u; cat /proc/self/uid_map; touch /tmp/mine; echo x >/proc/self/fd/1"
    program = container(root, "sh", "-c", script, flags=FRESH | NEWUSER, **mapped())
    uid, ids, x = lines(launch(compiled, program, run_dir))
    assert (uid, ids.split(), x) == ("0", ["0", "100000", "65536"], "x")
    assert os.stat(f"{root}/tmp/mine").st_uid == 100000


def status_of(run, *last) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in lines(run("cat", "/proc/self/status", last=last)))


def test_identity_and_capabilities(run):
    status = status_of(
        run,
        NoNewPrivileges(),
        BoundingSet(NET_BIND),
        Identity(1000, 1001, (5, 6)),
        Capabilities(NET_BIND, NET_BIND, NET_BIND, NET_BIND),
    )
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert status["Groups"].split() == ["5", "6"]
    assert status["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == NET_BIND, name


def test_nothing_is_inheritable_by_default(run):
    status = status_of(
        run, BoundingSet(NET_BIND), Identity(0, 0, ()), Capabilities(NET_BIND, NET_BIND)
    )
    assert status["Groups"].split() == []
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert int(status["CapPrm"], 16) == NET_BIND


@pytest.mark.parametrize(
    "identity", [Identity(-1, 0, ()), Identity(0, 0xFFFFFFFF, ()), Identity(0, 0, (-1,))]
)
def test_an_id_that_would_leave_root_as_it_is_is_refused(run, identity):
    assert run("true", last=[identity]).failure.b == errno.EINVAL


def test_capabilities_that_do_not_exist_are_an_error(run):
    """The kernel masks them silently; reading back tells."""
    assert run("true", last=[Capabilities(1 << 60, 1 << 60)]).failure.b == errno.EPERM


# -- paths --------------------------------------------------------------------------------


def hostile_target(root: str, tmp_path: Path) -> str:
    """A path in the container that tries to lead to a folder of the host's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(f"../../../../../../../../../../{outside}", f"{root}/tmp/up")
    os.symlink(os.fspath(outside), f"{root}/tmp/absolute")
    return os.fspath(outside)


@pytest.mark.parametrize("link", ["up", "absolute"])
def test_links_lead_to_places_beneath_the_root(run, root, tmp_path, link):
    outside = hostile_target(root, tmp_path)
    result = run(
        "true",
        setup=[
            MakeDirectory(f"/tmp/{link}/made"),
            MountAt("tmpfs", f"/tmp/{link}/mount"),
            MakeNode(f"/tmp/{link}/node", 0o20600, 1, 3),
            Symlink(f"/tmp/{link}/link", "x"),
            MountAt("tmpfs", "/tmp/../../../../tmp/dots/mount"),
        ],
        settle=[Chdir(f"/tmp/{link}/cwd", 1, 7, 8)],
    )
    assert result.exit_code == 0, result
    assert os.listdir(outside) == []
    assert sorted(os.listdir(root + outside)) == ["cwd", "link", "made", "mount", "node"]
    assert os.stat(f"{root}{outside}/cwd").st_uid == 7
    assert os.path.isdir(f"{root}/tmp/dots/mount")


@pytest.mark.parametrize("text", ["/run", "../run", "../../../run"])
def test_dangling_link_in_a_target_is_followed(run, root, text):
    """Images ship /var/run -> /run without the folder; docker makes that."""
    os.mkdir(f"{root}/var")
    os.symlink(text, f"{root}/var/run")
    result = run(
        "true",
        prepare=[OpenTree(FREE_SLOT, "/dev/null")],
        setup=[
            MountAt("tmpfs", "/var/run/a/b"),
            MoveMount(FREE_SLOT, "/var/run/file", Create.FILE),
        ],
    )
    assert result.exit_code == 0, result
    assert os.path.isdir(f"{root}/run/a/b")
    assert os.path.isfile(f"{root}/run/file")
    assert os.readlink(f"{root}/var/run") == text


def test_loop_of_links_is_an_error(run, root):
    os.symlink("b", f"{root}/tmp/a")
    os.symlink("a", f"{root}/tmp/b")
    assert run("true", setup=[MountAt("tmpfs", "/tmp/a/x")]).failure.b == errno.ELOOP


def test_missing_target_that_may_not_be_made_is_an_error(run, root):
    failure = run("true", setup=[MountAt("tmpfs", "/tmp/x", create=Create.NOTHING)]).failure
    assert (failure.b, failure.text) == (errno.ENOENT, "open /tmp/x")
    assert os.listdir(f"{root}/tmp") == []


def test_magic_links_are_refused(run):
    failure = run("true", setup=[MountAt("tmpfs", "/proc/self/root/tmp")]).failure
    assert failure.b == errno.ELOOP


def test_modes_and_owners(run, root):
    result = run(
        "true",
        settle=[Umask(0o077)],
        setup=[
            MakeDirectory("/tmp/a/b", 0o1777, 3, 4),
            MakeDirectory("/tmp", 0o700),
            MakeNode("/tmp/node", 0o20666, 1, 3, 5, 6),
        ],
    )
    assert result.exit_code == 0
    made, parent, node = (os.stat(f"{root}/tmp/{name}") for name in ("a/b", "a", "node"))
    assert (made.st_mode & 0o7777, made.st_uid, made.st_gid) == (0o1777, 3, 4)
    assert (parent.st_mode & 0o7777, parent.st_uid) == (0o755, 0)
    assert (node.st_mode, node.st_rdev, node.st_uid, node.st_gid) == (
        0o20666,
        os.makedev(1, 3),
        5,
        6,
    )
    assert os.stat(f"{root}/tmp").st_mode & 0o7777 == 0o755  # was there


def test_node_that_exists_is_an_error(run):
    assert run("true", setup=[MakeNode("/tmp", 0o20666, 1, 3)]).failure.b == errno.EEXIST


@pytest.mark.parametrize(
    ("path", "verify"),
    [
        ("/dev/zero", Verify.CHAR_DEVICE),
        ("/etc", Verify.PROCFS),
        ("/etc/passwd", Verify.DIRECTORY),
        ("/proc", Verify.CGROUP),
        ("/proc", Verify.NSFS),
    ],
)
def test_what_does_not_verify_is_refused(run, path, verify):
    operation = OpenPath(FREE_SLOT, path, os.O_RDONLY, verify, 1, 3)
    assert run("true", prepare=[operation]).failure.b == errno.EBADF


# -- mounts -------------------------------------------------------------------------------


def test_masked_and_readonly_paths(run):
    masks = ["/proc/version", "/proc/fs", "/proc/sys/kernel", "/tmp/missing", "/etc/passwd/x"]
    script = (
        "wc -c </proc/version; ls /proc/fs /proc/sys/kernel; "
        "(echo 1 >/proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo read-only; "
        "touch /proc/fs/x 2>/dev/null || echo read-only; "
        "chmod 600 /proc/version 2>/dev/null || echo the host owns it"
    )
    result = run(
        "sh",
        "-c",
        script,
        setup=[*(MaskPath(path, NULL_SLOT) for path in masks), ReadonlyPath("/proc/sys")],
    )
    *seen, chmod = lines(result)
    assert seen == ["0", "/proc/fs:", "", "/proc/sys/kernel:", "read-only", "read-only"]
    assert chmod == "the host owns it"


def test_sysctl_is_written_below_a_read_only_path(run):
    result = run(
        "cat",
        "/proc/sys/net/ipv4/ip_forward",
        setup=[ReadonlyPath("/proc/sys")],
        settle=[Sysctl("net/ipv4/ip_forward", "1")],
    )
    assert lines(result) == ["1"]


@pytest.mark.parametrize(
    "path", ["../1/oom_score_adj", "net/../../sysrq-trigger", "/proc/sysrq-trigger"]
)
def test_sysctl_stays_below_proc_sys(run, path):
    assert run("true", settle=[Sysctl(path, "0")]).failure.b == errno.EXDEV


def test_read_only_root(run):
    script = "touch /x 2>/dev/null || echo read-only; touch /tmp/x && echo writable"
    result = run("sh", "-c", script, setup=[MountAt("tmpfs", "/tmp"), RootAttr(1)])
    assert lines(result) == ["read-only", "writable"]


def test_nothing_of_the_old_root_is_left(run):
    """Every mount is the root or one that the program put beneath it."""
    result = run("sh", "-c", "cut -d' ' -f5 /proc/self/mountinfo; cd /..; pwd; [ / -ef /.. ]")
    *mounts, where = lines(result)
    assert where == "/"
    assert mounts[0] == "/"
    tops = {mount.split("/")[1] for mount in mounts[1:]}
    assert tops <= {"usr", "bin", "sbin", "lib", "lib32", "lib64", "proc"}


def overlay_folders(folder: Path, root: str) -> str:
    for name in ("upper", "work", "merged"):
        (folder / name).mkdir()
    os.symlink(root, folder / "l")
    return os.fspath(folder)


@pytest.fixture
def ram(tmp_path_factory, root):
    """A folder on tmpfs: overlayfs refuses an upper folder on another overlay."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    folder = tmp_path_factory.mktemp("ram")
    assert libc.mount(b"tmpfs", os.fspath(folder).encode(), b"tmpfs", 0, None) == 0
    yield folder
    assert libc.umount2(os.fspath(folder).encode(), 2) == 0


def test_staged_overlay_as_root(compiled, root, run_dir, ram):
    folder = overlay_folders(ram, root)
    with open(f"{root}/etc/below", "w", encoding="ascii") as file:
        file.write("below\n")
    program = container(root, "sh", "-c", "cat /etc/below; echo new >/etc/above")
    program[0] = StageMount(0, "overlay", folder, "lowerdir=l,upperdir=upper,workdir=work")
    assert lines(launch(compiled, program, run_dir)) == ["below"]
    assert os.listdir(f"{folder}/merged") == []
    assert os.listdir(f"{folder}/upper/etc") == ["above"]
    assert os.listdir(f"{root}/etc") == ["below"]


def test_new_mount_with_options_as_root(compiled, root, run_dir, ram):
    folder = overlay_folders(ram, root)
    program = container(root, "touch", "/etc/above")
    program[0] = NewMount(
        0,
        "overlay",
        "overlay",
        (f"lowerdir={root}", f"upperdir={folder}/upper", f"workdir={folder}/work", "xino=off"),
    )
    assert launch(compiled, program, run_dir).exit_code == 0
    assert os.listdir(f"{folder}/upper/etc") == ["above"]


def test_empty_slot_is_an_error(run):
    failure = run("true", setup=[MoveMount(99, "/tmp")]).failure
    assert failure.b == errno.EBADF


def test_rlimit(run):
    assert lines(
        run("sh", "-c", "ulimit -n; ulimit -c", settle=[Rlimit(7, 77, 88), Rlimit(4, 0, -1)])
    ) == [
        "77",
        "0",
    ]


# -- the supervisor -----------------------------------------------------------------------


def test_supervisor_holds_nothing_but_what_it_needs(begin):
    with begin("sh", "-c", WAIT) as running:
        assert running.start()
        read_until(running.stdout, b"ready\n")
        assert os.readlink(f"/proc/{running.pid}/cwd") == "/"
        assert os.getsid(running.pid) == running.pid
        targets = [
            os.readlink(f"/proc/{running.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{running.pid}/fd")
        ]
        assert len(targets) < 16
        assert not [target for target in targets if "ctr-program" in target]


def test_idle_supervisor_is_small(begin):
    freestanding = os.uname().machine in build.MACHINES
    with begin("sh", "-c", WAIT) as running:
        assert running.start()
        read_until(running.stdout, b"ready\n")
        with open(f"/proc/{running.pid}/smaps_rollup", encoding="ascii") as file:
            pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        assert pss < (200 if freestanding else 1000)  # kB
        running.send(protocol.SIGNAL, signal.SIGKILL)
        running.finish()


def test_phase_can_be_moved(run):
    """An operation runs where the program puts it, also on the parent's side."""
    result = run(
        "true", cloned=[OpenPath(FREE_SLOT, "/etc", os.O_PATH, Verify.DIRECTORY).at(Phase.CLONED)]
    )
    assert result.exit_code == 0
