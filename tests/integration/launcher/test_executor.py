"""Each operation does what it says, on the real kernel, by both launchers."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import struct
import subprocess
from typing import TYPE_CHECKING, cast

import pytest

from ctr import kernel as linux
from ctr import operations as ops
from ctr.launcher import build, protocol, reference
from ctr.program import Create, Phase, Verify

from . import harness
from .programs import FREE, NAMESPACES, NULL, ROOT, make_rootfs, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ctr.program import Operation

    from .harness import LauncherModule, Message, Result

pytestmark = pytest.mark.root

USERNS = NAMESPACES | linux.CLONE_NEWUSER
# The child must become its namespace's root: until then it is the host's, whom nobody knows.
USER = (
    ops.WriteIdMaps("0 100000 65536\n", "0 200000 65536\n"),
    ops.Identity(0, 0, ()).at(Phase.JOIN),
)
RLIMIT_NOFILE = 7
TMPFS_MAGIC = 0x01021994
KERNEL = tuple(int(number) for number in os.uname().release.split(".")[:2])


@pytest.fixture(params=["reference", "native"])
def module(request: pytest.FixtureRequest) -> LauncherModule:
    if request.param == "reference":
        return cast("LauncherModule", reference)
    try:
        build.compiler()
    except FileNotFoundError as error:
        pytest.skip(f"the native launcher can't be built: {error}")
    return cast("LauncherModule", request.getfixturevalue("compiled"))


@pytest.fixture
def rootfs(tmp_path: Path) -> str:
    return make_rootfs(str(tmp_path / "rootfs"))


class Containers:
    """Runs programs on one launcher."""

    def __init__(self, module: LauncherModule, rootfs: str, folder: Path) -> None:
        self.module = module
        self.rootfs = rootfs
        self.folder = folder
        self.count = 0

    def launch(
        self, operations: list[Operation], on_sync: Callable[[int, int], None] | None = None
    ) -> Result:
        self.count += 1
        run_dir = self.folder / f"run{self.count}"
        run_dir.mkdir()
        return harness.launch(self.module, operations, str(run_dir), on_sync=on_sync)

    def __call__(
        self,
        script: str,
        *extra: Operation,
        root: str | Iterable[Operation] = "",
        flags: int = NAMESPACES,
    ) -> str:
        """What a shell script says in a container, both outputs together."""
        command = ("sh", "-c", f"exec 2>&1; {script}")
        result = self.launch(program(root or self.rootfs, command, *extra, flags=flags))
        assert result.failure is None, result.failure
        return result.stdout.decode()

    def fails(self, bad: Operation, *extra: Operation, flags: int = NAMESPACES) -> Message:
        """The report of an operation that fails."""
        operations = program(self.rootfs, ("true",), *extra, bad, flags=flags)
        failure = self.launch(operations).failure
        assert failure is not None
        assert failure.a == operations.index(bad), (failure, operations)
        return failure


@pytest.fixture
def run(module: LauncherModule, rootfs: str, tmp_path: Path) -> Containers:
    return Containers(module, rootfs, tmp_path)


def status(run: Containers, *extra: Operation, flags: int = NAMESPACES) -> dict[str, str]:
    """/proc/self/status of a container."""
    result = run.launch(program(run.rootfs, ("cat", "/proc/self/status"), *extra, flags=flags))
    assert result.failure is None, result.failure
    text = result.stdout.decode()
    return dict(re.findall(r"^(\w+):[ \t]*(.*)$", text, re.MULTILINE))


# -- the root -----------------------------------------------------------------------------


def test_the_root_is_a_bind_mount(run: Containers) -> None:
    assert run("cat /srv/file; ls /").split() == ["served", *sorted(os.listdir(run.rootfs))]


def test_the_root_is_an_overlay(run: Containers, tmp_path: Path) -> None:
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    mount = ops.NewMount(
        ROOT,
        "overlay",
        "none",
        (f"lowerdir={run.rootfs}", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work"),
        linux.MOUNT_ATTR_NODEV,
    )
    text = run("echo new > /srv/new; grep ' / ' /proc/mounts", root=[mount])
    assert re.match(r"none / overlay \S*nodev\S*,lowerdir=", text)
    assert (tmp_path / "upper/srv/new").read_text() == "new\n"
    assert not os.path.exists(f"{run.rootfs}/srv/new")


def test_the_root_is_a_staged_overlay(run: Containers, tmp_path: Path) -> None:
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    before = mounts()
    data = "lowerdir=rootfs,upperdir=upper,workdir=work"
    mount = ops.StageMount(ROOT, "overlay", str(tmp_path), data, linux.MOUNT_ATTR_NOSUID)
    text = run("echo new > /srv/new; cat /proc/mounts", root=[mount])
    first, *others = text.splitlines()
    assert re.match(r"overlay / overlay \S*nosuid\S*,lowerdir=", first)
    assert [line.split()[1] for line in others] == ["/proc"]
    assert (tmp_path / "upper/srv/new").read_text() == "new\n"
    assert mounts() == before


def mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return file.read().splitlines()


def test_nothing_spreads_to_a_host_whose_mounts_are_shared(run: Containers) -> None:
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_SHARED)
    try:
        before = mounts()
        assert run("echo in", ops.MountAt("tmpfs", "/mnt"), ops.ReadonlyPath("/srv")) == "in\n"
        assert mounts() == before
    finally:
        linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)


def test_the_root_can_be_read_only(run: Containers) -> None:
    text = run(
        "touch /srv/new; touch /tmp/new && echo writable",
        ops.MountAt("tmpfs", "/tmp"),
        ops.RootAttr(linux.MOUNT_ATTR_RDONLY),
    )
    assert "/srv/new: Read-only file system" in text
    assert text.endswith("writable\n")


def test_nothing_of_the_hosts_mounts_is_left(run: Containers) -> None:
    assert run("sed 's/.* - //;s/ .*//' /proc/self/mountinfo | wc -l; ls /proc/1/cwd").split() == [
        "2",
        *sorted(os.listdir(run.rootfs)),
    ]


# -- mounts -------------------------------------------------------------------------------


def test_a_bind_mount_of_a_folder_and_of_a_file(run: Containers, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("bound\n")
    text = run(
        "cat /mnt/new/folder/file /srv/file; touch /mnt/new/folder/mine",
        ops.OpenTree(FREE, str(tmp_path / "source"), 1),
        ops.OpenTree(FREE + 1, str(tmp_path / "source/file")),
        ops.MoveMount(FREE, "/mnt/new/folder"),
        ops.MoveMount(FREE + 1, "/srv/file", Create.FILE),
    )
    assert text == "bound\nbound\n"
    assert (tmp_path / "source/mine").exists()
    assert stat.S_IMODE(os.stat(f"{run.rootfs}/mnt/new").st_mode) == 0o755


def test_a_file_is_made_to_mount_a_file_on(run: Containers) -> None:
    bind = ops.OpenTree(FREE, f"{run.rootfs}/srv/file")
    assert run("cat /run/x", bind, ops.MoveMount(FREE, "/run/x", Create.FILE)) == "served\n"
    failure = run.fails(ops.MoveMount(FREE, "/run/y", Create.NOTHING), bind)
    assert failure.b == errno.ENOENT


def test_attributes_of_a_detached_mount(run: Containers, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    text = run(
        "touch /mnt/x; grep /mnt /proc/mounts",
        ops.OpenTree(FREE, str(tmp_path / "source")),
        ops.MountAttr(FREE, linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOEXEC),
        ops.MoveMount(FREE, "/mnt"),
    )
    assert "Read-only file system" in text
    assert re.search(r" /mnt \S+ ro,noexec", text)


def is_tmpfs(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return linux.fstype_magic(fd) == TMPFS_MAGIC
    finally:
        os.close(fd)


def test_an_idmapped_mount(run: Containers, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    os.chown(tmp_path / "source", 7, 8)
    if KERNEL < (6, 3) and is_tmpfs(tmp_path):
        pytest.skip("before Linux 6.3 a tmpfs can't be idmapped")
    holder = subprocess.Popen(
        ["unshare", "--user", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.read(1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{holder.pid}/{name}", "w", encoding="ascii") as file:
                file.write("0 1000 100")
        text = run(
            "stat -c %u:%g /mnt",
            ops.OpenPath(FREE, f"/proc/{holder.pid}/ns/user", os.O_RDONLY, Verify.NSFS),
            ops.OpenTree(FREE + 1, str(tmp_path / "source")),
            ops.MountAttr(FREE + 1, linux.MOUNT_ATTR_IDMAP, userns=FREE),
            ops.MoveMount(FREE + 1, "/mnt"),
        )
    finally:
        holder.kill()
        holder.communicate()
    assert text == "1007:1008\n"


def test_a_new_mount_with_options_and_attributes(run: Containers) -> None:
    text = run(
        "grep ' /mnt ' /proc/mounts",
        ops.MountAt("tmpfs", "/mnt", ("size=64k", "mode=1777"), linux.MOUNT_ATTR_NOSUID),
    )
    assert text.startswith("none /mnt tmpfs rw,nosuid,relatime,size=64k")


def test_a_bad_option_is_reported_in_the_kernels_words(run: Containers) -> None:
    failure = run.fails(ops.MountAt("tmpfs", "/mnt", ("nonsense=1",)))
    assert failure.b == errno.EINVAL
    assert "nonsense" in failure.text


@pytest.mark.parametrize("link", ["/elsewhere", "../../../../../elsewhere"])
def test_links_in_targets_stay_in_the_root(run: Containers, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(f"{outside}", f"{run.rootfs}/absolute")
    os.symlink(f"../../../../../../../..{outside}", f"{run.rootfs}/relative")
    os.symlink(link, f"{run.rootfs}/dangling")
    text = run(
        "cat /absolute/a/x /relative/b/x; ls -d /elsewhere; ls /dangling",
        ops.OpenTree(FREE, f"{run.rootfs}/srv/file"),
        ops.OpenTree(FREE + 1, f"{run.rootfs}/srv/file"),
        ops.OpenTree(FREE + 2, f"{run.rootfs}/srv"),
        ops.MoveMount(FREE, "/absolute/a/x", Create.FILE),
        ops.MoveMount(FREE + 1, "/relative/b/x", Create.FILE),
        ops.MoveMount(FREE + 2, "/dangling"),
        ops.MakeDirectory("/absolute/c"),
        ops.MakeNode("/relative/null", stat.S_IFCHR | 0o666, 1, 3),
        ops.Symlink("/absolute/link", "x"),
    )
    assert text == "served\nserved\n/elsewhere\nfile\n"
    assert not list(outside.iterdir())
    inside = sorted(os.listdir(f"{run.rootfs}{outside}"))
    assert inside == ["a", "b", "c", "link", "null"]


def test_magic_links_lead_nowhere(run: Containers) -> None:
    for path in ("/proc/self/root/tmp/new", f"/proc/self/fd/{0}/new"):
        assert run.fails(ops.MakeDirectory(path)).b == errno.ELOOP
    assert run.fails(ops.MountAt("tmpfs", "/proc/self/cwd")).b == errno.ELOOP


def test_a_masked_file_is_empty_and_a_masked_folder_too(run: Containers) -> None:
    os.symlink("/etc/secret", f"{run.rootfs}/link")
    text = run(
        "cat /etc/secret; stat -c %t:%T /etc/secret; ls /srv; touch /srv/new; echo > /link",
        ops.MaskPath("/link", NULL),
        ops.MaskPath("/srv", NULL),
        ops.MaskPath("/nowhere/at/all", NULL),
        ops.MaskPath("/etc/secret/below", NULL),
    )
    assert text == "1:3\ntouch: /srv/new: Read-only file system\n"
    assert os.listdir(f"{run.rootfs}/srv") == ["file"]


def test_two_masked_folders_are_apart(run: Containers) -> None:
    paths = ("/srv", "/mnt", "/tmp")
    masks = [ops.MaskPath(path, NULL) for path in paths]
    text = run("grep -v ' / ' /proc/mounts", *masks)
    found = re.findall(r"^none (\S+) tmpfs (\S+)", text, re.MULTILINE)
    assert [path for path, _ in found] == list(paths)
    assert all({"ro", "nosuid", "nodev", "noexec"} < set(how.split(",")) for _, how in found)


def test_a_read_only_path_and_what_is_below_it(run: Containers) -> None:
    text = run(
        "touch /mnt/x /mnt/below/x /srv/x; echo 1 > /proc/sys/kernel/msgmax",
        ops.MountAt("tmpfs", "/mnt"),
        ops.MountAt("tmpfs", "/mnt/below"),
        ops.ReadonlyPath("/mnt"),
        ops.ReadonlyPath("/proc/sys"),
        ops.ReadonlyPath("/nowhere"),
    )
    assert text.count("Read-only file system") == 3
    assert "/srv/x" not in text


# -- files --------------------------------------------------------------------------------


def test_folders_are_made_with_mode_and_owner_or_left_alone(run: Containers) -> None:
    os.chmod(f"{run.rootfs}/srv", 0o700)
    text = run(
        "stat -c '%n %a %u:%g' /a /a/b /srv",
        ops.MakeDirectory("/a/b", 0o1777, 5, 6),
        ops.MakeDirectory("/srv", 0o777, 5, 6),
    )
    assert text.splitlines() == ["/a 755 0:0", "/a/b 1777 5:6", "/srv 700 0:0"]
    assert run.fails(ops.MakeDirectory("/srv/file")).b == errno.EEXIST


def test_devices(run: Containers) -> None:
    zero = ops.MakeNode("/dev/zero", stat.S_IFCHR | 0o666, 1, 5, 7, 8)
    text = run("stat -c '%F %t:%T %a %u:%g' /dev/zero; head -c 3 /dev/zero | wc -c", zero)
    assert text == "character special file 1:5 666 7:8\n3\n"
    assert run.fails(zero).b == errno.EEXIST


def test_links(run: Containers) -> None:
    assert run("readlink /dev/fd", ops.Symlink("/dev/fd", "/proc/self/fd")) == "/proc/self/fd\n"


def test_files_are_written_once_verified(run: Containers, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert run("true", ops.WriteFile(str(file), b"written")) == ""
    assert file.read_bytes() == b"written"
    wrong = ops.WriteFile(str(file), b"changed", Verify.PROCFS)
    assert run.fails(wrong).b == errno.EBADF
    assert file.read_bytes() == b"written"
    assert run.fails(ops.WriteFile(str(tmp_path / "none"), b"x")).b == errno.ENOENT


def test_what_is_opened_is_verified(run: Containers) -> None:
    bad = [
        ops.OpenPath(FREE, "/dev/zero", os.O_PATH, Verify.CHAR_DEVICE, 1, 3),
        ops.OpenPath(FREE, "/dev", os.O_PATH, Verify.CHAR_DEVICE, 1, 3),
        ops.OpenPath(FREE, "/dev/null", os.O_PATH, Verify.DIRECTORY),
        ops.OpenPath(FREE, "/dev/null", os.O_PATH, Verify.PROCFS),
        ops.OpenPath(FREE, "/dev/null", os.O_PATH, Verify.CGROUP),
        ops.OpenPath(FREE, "/dev/null", os.O_PATH, Verify.NSFS),
    ]
    assert [run.fails(operation).b for operation in bad] == [errno.EBADF] * len(bad)
    good = [
        ops.OpenPath(FREE, "/dev", os.O_PATH, Verify.DIRECTORY),
        ops.OpenPath(FREE, "/proc/self/status", os.O_RDONLY, Verify.PROCFS),
        ops.OpenPath(FREE, "/proc/self/ns/net", os.O_RDONLY, Verify.NSFS),
    ]
    assert run("echo good", *good) == "good\n"


def test_an_empty_slot_is_an_error(run: Containers) -> None:
    assert run.fails(ops.MoveMount(FREE, "/mnt")).b == errno.EBADF


# -- the process --------------------------------------------------------------------------


def test_names(run: Containers) -> None:
    text = run(
        "hostname; cat /proc/sys/kernel/domainname", ops.Hostname("web"), ops.Domainname("corp")
    )
    assert text == "web\ncorp\n"
    assert os.uname().nodename != "web"


def test_a_sysctl_is_set_though_the_path_is_read_only(run: Containers) -> None:
    with open("/proc/sys/kernel/msgmax", encoding="ascii") as file:
        before = file.read()
    text = run(
        "cat /proc/sys/kernel/msgmax",
        ops.ReadonlyPath("/proc/sys"),
        ops.Sysctl("kernel/msgmax", "4321"),
    )
    assert text == "4321\n"
    with open("/proc/sys/kernel/msgmax", encoding="ascii") as file:
        assert file.read() == before


def test_a_sysctl_stays_below_proc_sys(run: Containers) -> None:
    assert run.fails(ops.Sysctl("../1/comm", "pwned")).b == errno.EXDEV
    assert run.fails(ops.Sysctl("kernel/none_such", "1")).b == errno.ENOENT


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/p/sys"])
def test_nothing_is_mounted_on_procfs(run: Containers, target: str) -> None:
    os.symlink("/proc", f"{run.rootfs}/p")
    bind = ops.OpenTree(FREE, f"{run.rootfs}/srv")
    assert run.fails(ops.MoveMount(FREE, target), bind).b == errno.EPERM
    assert run.fails(ops.MountAt("tmpfs", target)).b == errno.EPERM


@pytest.mark.parametrize("target", ["/link", "/link/below", "/dangling"])
def test_a_plain_target_is_no_link(run: Containers, target: str) -> None:
    links = [ops.Symlink("/link", "/srv"), ops.Symlink("/dangling", "/nothing")]
    plain = ops.MountAt("tmpfs", target, create=Create.PLAIN_DIRECTORY)
    assert run.fails(plain, *links).b == errno.ELOOP
    plain = ops.MountAt("tmpfs", "/new/below", create=Create.PLAIN_DIRECTORY)
    assert run("stat -f -c %T /new/below", plain) == "tmpfs\n"


def test_limits(run: Containers) -> None:
    assert run("ulimit -Sn; ulimit -Hn", ops.Rlimit(RLIMIT_NOFILE, 64, 128)) == "64\n128\n"
    assert run.fails(ops.Rlimit(RLIMIT_NOFILE, 2, 1)).b == errno.EINVAL


def test_a_new_session_keyring(run: Containers) -> None:
    if not os.path.exists("/proc/keys"):
        pytest.skip("this kernel shows no keys")
    assert re.search(r" keyring +ctr-test-ring: ", run("cat /proc/keys")) is None
    text = run("cat /proc/keys", ops.SessionKeyring("ctr-test-ring"))
    assert re.search(r" keyring +ctr-test-ring: ", text)


def test_an_interface_is_set_up(run: Containers) -> None:
    assert "UP" not in run("ifconfig lo")
    assert "UP LOOPBACK RUNNING" in run("ifconfig lo", ops.LinkUp("lo"))
    assert run.fails(ops.LinkUp("eth9")).b == errno.ENODEV


def test_umask(run: Containers) -> None:
    assert run("umask", ops.Umask(0o027)) == "0027\n"
    assert run("umask") == "0022\n"


def test_the_oom_score(run: Containers) -> None:
    assert run("cat /proc/self/oom_score_adj", ops.OomScore(500)) == "500\n"


def test_namespaces_are_new(run: Containers) -> None:
    names = ("mnt", "uts", "ipc", "pid", "net")
    script = "; ".join(f"readlink /proc/self/ns/{name}" for name in (*names, "user"))
    *inside, user = run(script).split()
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{name}") for name in names}
    assert user == os.readlink("/proc/self/ns/user")
    assert run("echo $$") == "1\n"


@pytest.mark.skipif(
    not os.path.exists("/proc/self/ns/time"), reason="this kernel has no time namespaces"
)
def test_a_time_namespace(run: Containers) -> None:
    with open("/proc/uptime", encoding="ascii") as file:
        host = float(file.read().split()[0])
    text = run(
        "cat /proc/uptime",
        ops.Unshare(linux.CLONE_NEWTIME),
        ops.WriteFile("/proc/self/timens_offsets", b"boottime 864000 0\n", Verify.PROCFS),
    )
    assert 864000 <= float(text.split()[0]) - host < 864060


def hierarchy(candidates: tuple[str, ...], magic: int) -> str:
    """The first of the folders that is a control-group hierarchy of this kind."""
    for path in candidates:
        if os.path.isdir(path):
            fd = os.open(path, os.O_RDONLY)
            try:
                if linux.fstype_magic(fd) == magic:
                    return path
            finally:
                os.close(fd)
    pytest.skip(f"none of {', '.join(candidates)} is such a hierarchy")


@pytest.fixture
def cgroup1() -> Iterator[str]:
    top = hierarchy(("/sys/fs/cgroup/pids", "/sys/fs/cgroup/freezer"), linux.CGROUP_SUPER_MAGIC)
    path = f"{top}/ctr-test-executor-{os.getpid()}"
    os.mkdir(path)
    yield path
    os.rmdir(path)


@pytest.fixture
def cgroup2() -> Iterator[str]:
    candidates = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    top = hierarchy(candidates, linux.CGROUP2_SUPER_MAGIC)
    path = f"{top}/ctr-test-executor-{os.getpid()}"
    os.mkdir(path)
    yield path
    os.rmdir(path)


def test_joining_a_cgroup_of_version_1(run: Containers, cgroup1: str) -> None:
    name = os.path.basename(cgroup1)
    join = [
        ops.OpenPath(FREE, f"{cgroup1}/tasks", os.O_WRONLY, Verify.CGROUP),
        ops.JoinCgroup(FREE),
    ]
    assert f"/{name}\n" in run("cat /proc/self/cgroup", *join)
    unshare = ops.Unshare(linux.CLONE_NEWCGROUP).at(Phase.JOIN)
    text = run("cat /proc/self/cgroup", *join, unshare)
    assert name not in text
    assert ":pids:/\n" in text or ":freezer:/\n" in text


def test_being_cloned_into_a_cgroup_of_version_2(run: Containers, cgroup2: str) -> None:
    name = os.path.basename(cgroup2)
    whole = program(run.rootfs, ("cat", "/proc/self/cgroup"))
    at = next(index for index, item in enumerate(whole) if isinstance(item, ops.Clone))
    whole[at : at + 1] = [
        ops.OpenPath(FREE, cgroup2, os.O_RDONLY | os.O_DIRECTORY, Verify.CGROUP),
        ops.Clone(NAMESPACES, cgroup=FREE),
    ]
    result = run.launch(whole)
    assert result.failure is None, result.failure
    assert f"0::/{name}\n" in result.stdout.decode()


def test_a_user_namespace(run: Containers) -> None:
    text = run(
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; echo out > /proc/self/fd/1;"
        "touch /mnt/x; stat -c %u:%g /mnt/x /mnt/made /srv/file; touch /srv/new",
        *USER,
        ops.MountAt("tmpfs", "/mnt"),
        ops.MakeDirectory("/mnt/made", 0o755, 5, 6),
        flags=USERNS,
    )
    lines = [line.split() for line in text.splitlines()]
    assert lines[:2] == [["0", "100000", "65536"], ["0", "200000", "65536"]]
    assert text.splitlines()[2:7] == ["0", "out", "0:0", "5:6", "65534:65534"]
    assert "/srv/new: Permission denied" in text


def test_the_streams_belong_to_the_containers_user(run: Containers) -> None:
    script = "stat -L -c %u:%g /proc/self/fd/0 /proc/self/fd/2; echo out > /proc/self/fd/2"
    for flags, user in ((NAMESPACES, ()), (USERNS, USER)):
        whole = program(
            run.rootfs, ("sh", "-c", script), *user, ops.Identity(5, 6, ()), flags=flags
        )
        whole = [ops.Stdio(5, 6) if isinstance(item, ops.Stdio) else item for item in whole]
        result = run.launch(whole)
        assert result.failure is None, result.failure
        assert (result.stdout, result.stderr) == (b"5:6\n5:6\n", b"out\n")


def test_a_process_on_its_way_in_is_closed_to_others(run: Containers) -> None:
    """CVE-2016-9962: owned by its namespace's root, it could be traced from inside."""
    owners = []

    def look(point: int, pid: int) -> None:
        owners.append((point, os.stat(f"/proc/{pid}/maps").st_uid))

    whole = program(
        run.rootfs,
        ("true",),
        *USER,
        ops.Sync(3).at(Phase.ROOT),
        ops.Identity(5, 5, ()),
        ops.Capabilities(0, 0),
        ops.Sync(3).at(Phase.LAST),
        flags=USERNS,
    )
    assert run.launch(whole, on_sync=look).exit_code == 0
    assert owners == [(1, 0), (3, 0), (3, 0)]


def test_no_new_privileges(run: Containers) -> None:
    assert status(run)["NoNewPrivs"] == "0"
    assert status(run, ops.NoNewPrivileges())["NoNewPrivs"] == "1"


def bpf(blocked: int) -> bytes:
    """A filter that answers EPERM to one system call."""
    # from linux/filter.h and linux/seccomp.h: load the number; if equal: ERRNO, else ALLOW
    rows = [
        (0x20, 0, 0, 0),
        (0x15, 0, 1, blocked),
        (0x06, 0, 0, 0x00050000 | errno.EPERM),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    return b"".join(struct.pack("<HBBI", *row) for row in rows)


MKDIR = 83 if os.uname().machine == "x86_64" else 34  # mkdirat


def test_a_seccomp_filter_blocks_a_system_call(run: Containers) -> None:
    for before in ((), (ops.NoNewPrivileges(),)):
        text = run("mkdir /a; grep Seccomp: /proc/self/status", *before, ops.Seccomp(bpf(MKDIR)))
        assert "'/a': Operation not permitted" in text
        assert "Seccomp:\t2" in text
    assert run.fails(ops.Seccomp(b"\0" * 8)).b == errno.EINVAL


def test_identity(run: Containers) -> None:
    found = status(run, ops.Identity(1000, 1001, (1002, 1003)))
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Gid"].split() == ["1001"] * 4
    assert found["Groups"].split() == ["1002", "1003"]
    assert status(run, ops.Identity(0, 0, ()))["Groups"] == ""
    assert run.fails(ops.Identity(-1, 0, ())).b == errno.EINVAL
    assert run.fails(ops.Identity(0, 2**32 - 1, ())).b == errno.EINVAL


CHOWN, KILL, SETUID = 1 << 0, 1 << 5, 1 << 7
SETPCAP = 1 << 8


def masks(found: dict[str, str]) -> dict[str, int]:
    return {name: int(text, 16) for name, text in found.items() if name.startswith("Cap")}


def test_capabilities_of_root(run: Containers) -> None:
    keep = CHOWN | KILL
    found = status(run, ops.BoundingSet(keep), ops.Identity(0, 0, ()), ops.Capabilities(keep, keep))
    assert masks(found) == {
        "CapInh": 0,
        "CapPrm": keep,
        "CapEff": keep,
        "CapBnd": keep,
        "CapAmb": 0,
    }


def test_capabilities_of_another_user(run: Containers) -> None:
    keep = CHOWN | KILL
    found = status(run, ops.BoundingSet(keep), ops.Identity(9, 9, ()), ops.Capabilities(keep, keep))
    assert masks(found) == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": keep, "CapAmb": 0}


def test_ambient_capabilities(run: Containers) -> None:
    keep = CHOWN | KILL
    found = status(
        run,
        ops.BoundingSet(keep),
        ops.Identity(9, 9, ()),
        ops.Capabilities(keep, keep, inheritable=KILL, ambient=KILL),
    )
    assert masks(found) == {
        "CapInh": KILL,
        "CapPrm": KILL,
        "CapEff": KILL,
        "CapBnd": keep,
        "CapAmb": KILL,
    }


def test_capabilities_that_are_not_held_can_not_be_set(run: Containers) -> None:
    drop = ops.Capabilities(CHOWN, CHOWN)
    more = ops.Capabilities(CHOWN | SETUID, CHOWN | SETUID)
    assert run.fails(more, drop).b == errno.EPERM
    ambient = ops.Capabilities(CHOWN, CHOWN, ambient=CHOWN)
    assert run.fails(ambient).b == errno.EPERM


# -- the end ------------------------------------------------------------------------------


def test_the_working_directory(run: Containers) -> None:
    text = run("pwd; stat -c %u:%g . ..", ops.Chdir("/made/here", 1, 5, 6))
    assert text == "/made/here\n5:6\n0:0\n"
    assert run("pwd; stat -c %u .", ops.Chdir("/srv", 1, 5, 6)) == "/srv\n0\n"
    assert run.fails(ops.Chdir("/not/there")).b == errno.ENOENT
    assert run.fails(ops.Chdir("/srv/file")).b == errno.ENOTDIR


@pytest.mark.parametrize("number", range(3, 12))
def test_a_working_directory_outside_of_the_root_is_refused(run: Containers, number: int) -> None:
    """CVE-2024-21626: a descriptor of the host's, reached through /proc/self/fd."""
    outside = ops.OpenPath(FREE, "/", os.O_RDONLY | os.O_DIRECTORY)
    bad = ops.Chdir(f"/proc/self/fd/{number}")
    assert run.fails(bad, outside).b in {errno.ELOOP, errno.ENOENT}


def test_only_the_standard_streams_are_open(run: Containers) -> None:
    leaks = [
        ops.OpenPath(FREE, "/", os.O_RDONLY | os.O_DIRECTORY),
        ops.OpenPath(FREE + 1, "/etc", os.O_RDONLY).at(Phase.SETUP),
    ]
    assert run("ls /proc/1/fd; true", *leaks).split() == ["0", "1", "2"]
    kinds = run("for n in 0 1 2; do readlink /proc/1/fd/$n; done")
    assert re.fullmatch(r"(pipe:\[\d+\]\n){3}", kinds)


def test_signals_are_as_a_fresh_program_expects_them(run: Containers) -> None:
    found = status(run)
    assert int(found["SigIgn"], 16) == 0
    assert int(found["SigBlk"], 16) == 0


def test_the_container_is_a_session_of_its_own(run: Containers) -> None:
    # fields 4 to 6 of /proc/PID/stat: parent, process group, session
    assert run("sed 's/.*) . //' /proc/1/stat").split()[:3] == ["0", "1", "1"]


def test_the_environment_is_given_as_it_is(run: Containers) -> None:
    given = ("PATH=/bin", "A=1", "A=2", "EMPTY=", "LINE=a\nb", "odd")
    whole = program(run.rootfs, ("cat", "/proc/self/environ"), environment=given)
    assert run.launch(whole).stdout == b"".join(item.encode() + b"\0" for item in given)


def test_arguments_are_bytes(run: Containers) -> None:
    words = ("", "a b", b"\xff\xfe".decode(errors="surrogateescape"), "ü\n")
    result = run.launch(program(run.rootfs, ("cat", "/proc/self/cmdline", *words)))
    expected = [b"cat", b"/proc/self/cmdline", *(os.fsencode(word) for word in words)]
    assert result.stdout == b"".join(word + b"\0" for word in expected)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("nowhere", errno.ENOENT),
        ("/bin/nowhere", errno.ENOENT),
        ("/etc/secret", errno.EACCES),
        ("secret", errno.EACCES),
        ("folder", errno.ENOENT),
        ("/srv", errno.EACCES),
        ("/srv/file/x", errno.ENOTDIR),
        ("/bin/text", errno.ENOEXEC),
        ("", errno.ENOENT),
    ],
)
def test_a_command_that_can_not_be_executed(run: Containers, name: str, number: int) -> None:
    os.mkdir(f"{run.rootfs}/bin/folder")
    with open(f"{run.rootfs}/bin/text", "w", encoding="ascii") as file:
        file.write("no magic number")
    os.chmod(f"{run.rootfs}/bin/text", 0o755)
    whole = program(run.rootfs, ("true",))
    whole[-1] = ops.Exec((name, "x"), (), "/bin:/etc:/none:/srv/file")
    failure = run.launch(whole).failure
    assert failure is not None
    assert (failure.a, failure.b) == (len(whole) - 1, number)


def test_a_command_is_looked_up_in_the_containers_path(run: Containers) -> None:
    whole = program(run.rootfs, ("true",))
    whole[-1] = ops.Exec(("echo", "found"), (), "/none:/etc:/bin")
    assert run.launch(whole).stdout == b"found\n"


def test_oom_kills_are_read_at_the_end(run: Containers, tmp_path: Path) -> None:
    for text, killed in (("oom_kill_disable 0\noom_kill 2\n", 1), ("oom_kill 0\n", 0), ("", 0)):
        (tmp_path / "events").write_text(text)
        result = run.launch(program(run.rootfs, ("true",), ops.WatchOom(str(tmp_path / "events"))))
        (exited,) = [event for event in result.events if event.kind == protocol.EXITED]
        assert exited.b == killed
    assert run.fails(ops.WatchOom(str(tmp_path / "none"))).b == errno.ENOENT


def test_a_child_that_dies_on_its_way_is_a_failed_launch(run: Containers) -> None:
    result = run.launch(
        program(run.rootfs, ("true",), ops.Sync(3).at(Phase.ROOT)),
        on_sync=lambda point, pid: os.kill(pid, signal.SIGKILL) if point == 3 else None,
    )
    assert result.failure is not None
    assert (result.failure.a, result.failure.b) == (-1, 0)
    assert result.failure.text == "the child died: wait status 9"
    assert protocol.STARTED not in result.kinds


def test_a_filter_that_kills_the_exec_is_a_failed_launch(run: Containers) -> None:
    execve = 59 if os.uname().machine == "x86_64" else 221
    kill = bpf(execve).replace(struct.pack("<I", 0x00050000 | errno.EPERM), b"\0\0\0\x80")
    result = run.launch(program(run.rootfs, ("true",), ops.Seccomp(kill)))
    assert result.failure is not None
    assert result.failure.text.startswith("the child died: wait status")
