"""The reference executor on a fake kernel: which calls, in which order, and who is blamed."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from ctr import kernel as linux
from ctr import operations as ops
from ctr.errors import InvalidError, UnsupportedError
from ctr.launcher import protocol
from ctr.launcher.reference_executor import CLONED, PARTED, Channel, Executor, check
from ctr.program import OPERATIONS, Create, Phase, Side, Verify
from ctr.testing.kernel import FakeKernel, fake_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.program import Operation

STDIO = (51, 52, 53)
SLOT = ops.OpenPath(0, "/x", os.O_PATH)
EXT4 = 0xEF53
DIRECTORY = fake_status(stat.S_IFDIR | 0o755)


class Reports(Channel):
    """The channel as a list; GO is always there.  ``calls`` counts those made before each."""

    def __init__(self, kernel: FakeKernel) -> None:
        super().__init__(-1)
        self.kernel = kernel
        self.sent: list[tuple[int, int, int, str]] = []
        self.calls: list[int] = []
        self.waits = 0

    def send(self, kind: int, a: int = 0, b: int = 0, text: str = "") -> None:
        self.sent.append((kind, a, b, text))
        self.calls.append(len(self.kernel.calls))

    def wait(self) -> None:
        self.waits += 1


def execute(
    program: Sequence[Operation], kernel: FakeKernel, *, trace: bool = False
) -> tuple[bool, Reports]:
    reports = Reports(kernel)
    done = Executor(kernel, reports, program, STDIO, trace=trace).execute()
    return done, reports


def calls(*program: Operation, **fake: Any) -> list[str]:
    """The names of the calls that a program makes beyond those of its Clone."""
    kernel = FakeKernel(**fake)
    if any(isinstance(operation, ops.MountAt | ops.MoveMount) for operation in program):
        kernel.results["fstype_magic"] = EXT4  # nothing is mounted on procfs
    whole = sorted([ops.Clone(0), *program], key=lambda operation: operation.phase)
    done, reports = execute(whole, kernel)
    assert done, reports.sent
    names = kernel.names
    guard = ["prctl", "prctl"]
    assert names[:2] == guard
    clone = names.index("clone3")
    assert names[clone + 1 : clone + 3] == guard
    return names[2:clone] + names[clone + 3 :]


NEW_MOUNT = ["fsopen", "fsconfig_create", "fsmount", "close"]
FIND = ["open", "openat2", "close"]  # a path in the host's root, for want of a container's
PLACE = [*FIND, "fstype_magic", "move_mount"]

# Each operation and the system calls that it is.
TABLE: list[tuple[Operation, list[str]]] = [
    (ops.OpenPath(0, "/dev/null", os.O_PATH), ["open"]),
    (ops.OpenPath(0, "/dev/null", 0, Verify.CHAR_DEVICE, 1, 3), ["open", "fstat"]),
    (ops.OpenPath(0, "/proc/self/ns/net", 0, Verify.PROCFS), ["open", "fstype_magic"]),
    (ops.OpenTree(0, "/srv", 1), ["open", "open_tree", "close"]),
    (
        ops.NewMount(0, "overlay", "none", ("lowerdir+=/a", "volatile")),
        ["fsopen", "fsconfig_string", "fsconfig_string", "fsconfig_flag", *NEW_MOUNT[1:]],
    ),
    (
        ops.StageMount(0, "overlay", "/stage", "lowerdir=a:b", linux.MOUNT_ATTR_RDONLY),
        [
            *("unshare", "mount", "chdir", "mount", "open_tree", "mount_setattr"),
            *("umount2", "chdir"),
        ],
    ),
    (ops.Unshare(linux.CLONE_NEWTIME), ["unshare"]),
    (ops.WriteFile("/x", b"1", Verify.PROCFS), ["open", "fstype_magic", "write", "close"]),
    (ops.Propagation(linux.MS_PRIVATE), ["mount"]),
    (ops.MountAt("tmpfs", "/tmp"), [*NEW_MOUNT, *PLACE, "close", "close"]),
    (
        ops.MountAt("proc", "/proc"),
        [*NEW_MOUNT, *PLACE, "open_tree", "close", "close"],
    ),
    (
        ops.MakeNode("/dev/null", stat.S_IFCHR, 1, 3),
        [*FIND, "umask", "mknod", "umask", "chown", "close"],
    ),
    (ops.Symlink("/dev/fd", "/proc/self/fd"), [*FIND, "symlink", "close"]),
    (
        ops.ReadonlyPath("/proc/sys"),
        [*FIND, "open_tree", "mount_setattr", "move_mount", "close", "close"],
    ),
    (
        ops.Sysctl("net/ipv4/ip_forward", "1"),
        [*FIND, "openat2", "fstype_magic", "write", "close", "close"],
    ),
    (ops.Rlimit(7, 64, 64), ["prlimit"]),
    (ops.Hostname("web"), ["sethostname"]),
    (ops.Domainname("example"), ["setdomainname"]),
    (ops.SessionKeyring("ctr"), ["join_session_keyring"]),
    (ops.LinkUp("lo"), ["link_up"]),
    (ops.Umask(0o022), ["umask"]),
    (ops.Stdio(1, 2), ["setsid", *["fchown", "dup2"] * 3]),
    (ops.Chdir("/"), [*FIND, "fchdir", "close", "getcwd"]),
    (ops.NoNewPrivileges(), ["prctl"]),
    (ops.Seccomp(b"\0" * 8), ["seccomp"]),
    (ops.BoundingSet(0), ["prctl"] * 64),
    (
        ops.Identity(1, 2, (3,)),
        ["prctl", "setgroups", "setresgid", "setresuid", "prctl", "prctl"],
    ),
    (
        ops.Capabilities(1, 1),
        ["capset", "prctl", *["prctl"] * 64, "capget", "prctl", "prctl"],
    ),
    (ops.CloseDescriptors(), ["close_range"]),
    (ops.Exec(("/bin/true",), (), ""), ["execve"]),
]
# What needs a descriptor first, put into slot 0 by one open.
WITH_SLOT: list[tuple[Operation, list[str]]] = [
    (ops.MountAttr(0, 1, userns=0), ["mount_setattr"]),
    (ops.JoinCgroup(0), ["write"]),
    (ops.AttachRoot(0), ["move_mount"]),
    (ops.MoveMount(0, "/mnt"), [*PLACE, "close"]),
    (
        ops.MaskPath("/x", 0),
        [*FIND, "fstat", "open_tree", "mount_setattr", "move_mount", "close", "close"],
    ),
]
# What needs the container's root.
WITH_ROOT: list[tuple[Operation, list[str]]] = [
    (ops.RootAttr(linux.MOUNT_ATTR_RDONLY), ["mount_setattr"]),
    (ops.PivotRoot(), ["fchdir", "pivot_root", "umount2", "chdir"]),
    (ops.Symlink("/a", "b"), ["openat2", "symlink", "close"]),
]


@pytest.mark.parametrize(("operation", "names"), TABLE, ids=lambda item: type(item).__name__)
def test_an_operation_is_these_calls(operation: Operation, names: list[str]) -> None:
    assert calls(operation) == names


@pytest.mark.parametrize(("operation", "names"), WITH_SLOT, ids=lambda item: type(item).__name__)
def test_an_operation_on_a_slot_is_these_calls(operation: Operation, names: list[str]) -> None:
    assert calls(SLOT, operation) == ["open", *names]


@pytest.mark.parametrize(("operation", "names"), WITH_ROOT, ids=lambda item: type(item).__name__)
def test_an_operation_on_the_root_is_these_calls(operation: Operation, names: list[str]) -> None:
    assert calls(SLOT, ops.AttachRoot(0), operation) == ["open", "move_mount", *names]


def test_every_operation_of_a_container_is_tried() -> None:
    elsewhere = {
        *(ops.WatchOom, ops.Sync, ops.Clone),  # the supervisor's and the executor's own
        *(ops.Setns, ops.Init),  # refused
        *(ops.WriteIdMaps, ops.OomScore),  # need a child
        ops.MakeDirectory,
    }
    tried = {type(operation) for operation, _ in (*TABLE, *WITH_SLOT, *WITH_ROOT)}
    assert tried | elsewhere == set(OPERATIONS.values())


# A program with nearly everything, as the lifecycle would order it.
PROGRAM: list[Operation] = [
    ops.WatchOom("/sys/fs/cgroup/memory/x/memory.oom_control"),
    ops.OpenPath(0, "/sys/fs/cgroup/memory/x/tasks", os.O_WRONLY, Verify.CGROUP),
    ops.NewMount(1, "overlay", "none", ("lowerdir+=/a", "volatile"), 0, ("upperdir=0",)),
    ops.StageMount(2, "overlay", "/stage", "lowerdir=a:b"),
    ops.OpenTree(3, "/srv"),
    ops.MountAttr(3, linux.MOUNT_ATTR_RDONLY),
    ops.Unshare(linux.CLONE_NEWTIME),
    ops.WriteFile("/proc/self/timens_offsets", b"monotonic 1 0", Verify.PROCFS),
    ops.Clone(linux.CLONE_NEWNS),
    ops.Sync(1),
    ops.JoinCgroup(0),
    ops.Propagation(linux.MS_PRIVATE),
    ops.AttachRoot(1),
    ops.MountAt("proc", "/proc"),
    ops.MoveMount(3, "/mnt"),
    ops.OpenPath(4, "/dev/null", os.O_PATH, Verify.CHAR_DEVICE, 1, 3).at(Phase.SETUP),
    ops.MaskPath("/proc/kcore", 4),
    ops.ReadonlyPath("/proc/sys"),
    ops.MakeNode("/dev/null", stat.S_IFCHR, 1, 3),
    ops.RootAttr(linux.MOUNT_ATTR_RDONLY),
    ops.Sync(2).at(Phase.SETUP),
    ops.PivotRoot(),
    ops.Sysctl("net/ipv4/ip_forward", "1"),
    ops.Hostname("web"),
    ops.Stdio(0, 0),
    ops.Sync(3).at(Phase.ROOT),
    ops.Chdir("/srv", create=1),
    ops.BoundingSet(0),
    ops.Identity(1, 1, (2,)),
    ops.Capabilities(0, 0),
    ops.CloseDescriptors(),
    ops.Exec(("true",), (), "/bin"),
]


def blamed(program: Sequence[Operation]) -> list[int]:
    """For each call of a run without failure, the operation that makes it."""
    kernel = fake()
    done, reports = execute(program, kernel, trace=True)
    assert done
    starts = [
        (count, a)
        for (kind, a, _, _), count in zip(reports.sent, reports.calls, strict=True)
        if kind == protocol.TRACE
    ]
    return [
        max((index for count, index in starts if count <= number), default=-1)
        for number in range(len(kernel.calls))
    ]


def fake(**options: Any) -> FakeKernel:
    """A kernel on which PROGRAM succeeds: the first file that is looked at is a cgroup's, and
    what is mounted on is ext4.
    """
    kernel = FakeKernel(**options)

    def magic(fd: int) -> int:
        if kernel.names.count("fstype_magic") == 1:
            return linux.CGROUP_SUPER_MAGIC
        paths = [call.arguments for call in kernel.calls if call.name in {"open", "openat2"}]
        return EXT4 if {"/proc", "/mnt"} & set(paths[-1]) else linux.PROC_SUPER_MAGIC

    kernel.results["fstype_magic"] = magic
    return kernel


BLAMED = blamed(PROGRAM)


def test_the_order_of_the_program_is_the_order_of_the_calls() -> None:
    assert sorted(BLAMED) == BLAMED
    makers = {PROGRAM[index] for index in BLAMED if index >= 0}
    silent = {type(operation) for operation in PROGRAM if operation not in makers}
    assert silent == {ops.WatchOom, ops.Sync}


@pytest.mark.parametrize("number", range(1, len(BLAMED) + 1))
def test_a_failure_at_any_call_names_its_operation(number: int) -> None:
    kernel = fake(fail_at=number)
    done, reports = execute(PROGRAM, kernel)
    assert not done
    assert reports.sent[-1] == (protocol.FAILED, BLAMED[number - 1], errno.EIO, "")


def test_the_child_waits_at_each_sync() -> None:
    _, reports = execute(PROGRAM, fake())
    assert [(kind, a) for kind, a, _, _ in reports.sent] == [
        (protocol.SYNC, 2),
        (protocol.SYNC, 3),
    ]
    assert reports.waits == 3  # for A once, before it does anything


def test_the_parent_ends_at_sync_point_a() -> None:
    kernel = fake()
    kernel.results["clone3"] = 77
    program = [*PROGRAM[:9], ops.WriteIdMaps("0 5 1", "0 6 1"), ops.OomScore(9), *PROGRAM[9:]]
    done, reports = execute(program, kernel)
    assert done
    assert reports.sent == [(CLONED, 0, 77, ""), (protocol.SYNC, 1, 0, "")]
    opened = [call.arguments[0] for call in kernel.calls if call.name == "open"]
    assert opened[-3:] == ["/proc/77/uid_map", "/proc/77/gid_map", "/proc/77/oom_score_adj"]
    assert [call.arguments for call in kernel.calls if call.name == "fchown"] == [
        (fd, 5, 6) for fd in STDIO
    ]


def test_a_parent_without_a_sync_says_that_its_part_is_over() -> None:
    done, reports = execute([ops.Clone(0)], FakeKernel(results={"clone3": 77}))
    assert done
    assert reports.sent == [(CLONED, 0, 77, ""), (PARTED, 0, 0, "")]


def test_the_child_is_the_supervisors() -> None:
    kernel = FakeKernel()
    opened = ops.OpenPath(5, "/x", 0)
    execute([opened, ops.Clone(linux.CLONE_NEWPID, cgroup=5)], kernel)
    (call,) = [call for call in kernel.calls if call.name == "clone3"]
    flags, exit_signal, cgroup = call.arguments
    assert flags == linux.CLONE_NEWPID | linux.CLONE_PARENT | linux.CLONE_INTO_CGROUP
    assert exit_signal == 0
    assert cgroup >= 1000


@pytest.mark.parametrize(
    ("operation", "results"),
    [
        (ops.OpenPath(0, "/x", 0, Verify.CHAR_DEVICE, 1, 5), {}),
        (ops.OpenPath(0, "/x", 0, Verify.CHAR_DEVICE, 1, 3), {"fstat": DIRECTORY}),
        (ops.OpenPath(0, "/x", 0, Verify.DIRECTORY), {}),
        (ops.OpenPath(0, "/x", 0, Verify.CGROUP), {}),
        (ops.OpenPath(0, "/x", 0, Verify.NSFS), {}),
        (ops.WriteFile("/x", b"", Verify.PROCFS), {"fstype_magic": EXT4}),
        (ops.Sysctl("a/b", "1"), {"fstype_magic": EXT4}),
        (ops.MountAttr(9, 1), {}),
        (ops.JoinCgroup(9), {}),
        (ops.AttachRoot(9), {}),
        (ops.RootAttr(1), {}),
        (ops.PivotRoot(), {}),
        (ops.MoveMount(9, "/x"), {}),
    ],
    ids=lambda item: type(item).__name__,
)
def test_what_does_not_verify_is_not_used(operation: Operation, results: dict[str, Any]) -> None:
    kernel = FakeKernel(results=results)
    whole = sorted([ops.Clone(0), operation], key=lambda item: item.phase)
    done, reports = execute(whole, kernel)
    assert not done
    assert reports.sent[-1][:3] == (protocol.FAILED, whole.index(operation), errno.EBADF)
    assert "write" not in kernel.names
    assert "move_mount" not in kernel.names


@pytest.mark.parametrize("operation", [ops.MountAt("tmpfs", "/x"), ops.MoveMount(0, "/x")])
def test_nothing_is_mounted_on_procfs(operation: Operation) -> None:
    kernel = FakeKernel()
    program = [SLOT, ops.Clone(0), operation]
    _, reports = execute(program, kernel)
    assert reports.sent[-1][:3] == (protocol.FAILED, 2, errno.EPERM)
    assert "move_mount" not in kernel.names


def failing(number: int, after: int = 0) -> Any:
    """A result that raises after that many good ones."""
    made: list[None] = []

    def result(*_: Any, **__: Any) -> int:
        made.append(None)
        if len(made) > after:
            raise OSError(number, os.strerror(number))
        return 1

    return result


def test_a_path_that_is_not_there_needs_no_mask() -> None:
    missing = {"openat2": failing(errno.ENOENT)}
    assert calls(ops.MaskPath("/proc/kcore", 0), results=missing) == FIND
    assert calls(ops.ReadonlyPath("/proc/bus"), results=missing) == FIND


def test_a_folder_is_masked_by_an_empty_tmpfs_and_a_file_by_null() -> None:
    folder = calls(ops.MaskPath("/proc/acpi", 0), results={"fstat": DIRECTORY})
    assert folder == [*FIND, "fstat", *NEW_MOUNT, "move_mount", "close", "close"]
    file = calls(SLOT, ops.MaskPath("/proc/keys", 0))
    assert file == [
        "open",
        *FIND,
        "fstat",
        "open_tree",
        "mount_setattr",
        "move_mount",
        "close",
        "close",
    ]


def test_missing_folders_are_made_one_at_a_time_by_descriptor() -> None:
    kernel = FakeKernel(results={"fstype_magic": EXT4})
    there = {"/"}

    def openat2(dirfd: int, path: str, *_: Any, **__: Any) -> int:
        if path.startswith("/") and path not in there:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return 2000 + len(kernel.calls)

    kernel.results["openat2"] = openat2
    program = [ops.Clone(0), ops.MountAt("tmpfs", "/a/b/c", create=Create.FILE)]
    assert execute(program, kernel)[0]
    made = [call for call in kernel.calls if call.name in {"mkdir", "mknod"}]
    assert [(call.name, call.arguments[0]) for call in made] == [
        ("mkdir", "a"),
        ("mkdir", "b"),
        ("mknod", "c"),
    ]
    assert all(call.keywords["dir_fd"] >= 2000 for call in made)
    in_root = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
    beneath = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS
    for call in kernel.calls:
        if call.name == "openat2":
            assert call.keywords["resolve"] == (in_root if "/" in call.arguments[1] else beneath)


def test_a_folder_that_is_there_is_left_as_it_is() -> None:
    there = calls(ops.MakeDirectory("/a"), results={"fstat": DIRECTORY})
    assert there == [*FIND, "fstat", "close"]
    _, reports = execute([ops.Clone(0), ops.MakeDirectory("/a")], FakeKernel())  # a device
    assert reports.sent[-1][:3] == (protocol.FAILED, 1, errno.EEXIST)


def test_a_folder_is_made_with_its_mode_and_owner() -> None:
    kernel = FakeKernel(results={"openat2": lambda _, path, *__, **___: missing(path)})

    def missing(path: str) -> int:
        if path == "/a/b":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return 9

    assert execute([ops.Clone(0), ops.MakeDirectory("/a/b", 0o1777, 5, 6)], kernel)[0]
    made = [call[:2] for call in kernel.calls if call.name in {"umask", "mkdir", "chown"}]
    assert made == [
        ("umask", (0,)),
        ("mkdir", ("b", 0o1777)),
        ("umask", (0o022,)),
        ("chown", ("b", 5, 6)),
    ]


def test_links_that_dangle_in_a_circle_end() -> None:
    results = {
        "openat2": lambda _, path, *__, **___: 9 if path == "/" else failing(errno.ENOENT)(),
        "mkdir": failing(errno.EEXIST),
        "readlink": "/loop",
    }
    kernel = FakeKernel(results=results)
    done, reports = execute([ops.Clone(0), ops.MountAt("tmpfs", "/loop")], kernel)
    assert not done
    assert reports.sent[-1][:3] == (protocol.FAILED, 1, errno.ELOOP)


def test_a_command_is_looked_up_as_execvp_does() -> None:
    answers = {"/a/x": errno.ENOENT, "/b/x": errno.EACCES, "/c/x": errno.ENOTDIR}

    def execve(path: str, *_: Any) -> None:
        raise OSError(answers[path], os.strerror(answers[path]))

    kernel = FakeKernel(results={"execve": execve, "stat": fake_status(stat.S_IFREG)})
    _, reports = execute([ops.Clone(0), ops.Exec(("x",), (), "/a:/b:/c")], kernel)
    assert [call.arguments[0] for call in kernel.calls if call.name == "execve"] == list(answers)
    assert reports.sent[-1] == (protocol.FAILED, 1, errno.EACCES, "x")

    kernel.results["stat"] = DIRECTORY
    _, reports = execute([ops.Clone(0), ops.Exec(("x",), (), "/a:/b:/c")], kernel)
    assert reports.sent[-1] == (protocol.FAILED, 1, errno.ENOENT, "x")


def test_a_folder_outside_of_the_root_is_refused() -> None:
    kernel = FakeKernel(results={"getcwd": "(unreachable)/root"})
    _, reports = execute([ops.Clone(0), ops.Chdir("/proc/self/fd/7")], kernel)
    assert reports.sent[-1][:3] == (protocol.FAILED, 1, errno.ENOENT)


def test_capabilities_that_did_not_take_are_a_failure() -> None:
    kernel = FakeKernel(results={"capget": linux.CapabilitySets(1, 1, 1)})
    _, reports = execute([ops.Clone(0), ops.Capabilities(1, 1)], kernel)
    assert reports.sent[-1][:3] == (protocol.FAILED, 1, errno.EPERM)


def test_only_what_is_not_in_the_mask_is_dropped() -> None:
    # Capabilities 0 to 2 are held, 3 is beyond this kernel's last.
    def prctl(option: int, capability: int, *_: int) -> int:
        if option == linux.PR_CAPBSET_READ and capability == 3:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return 1

    kernel = FakeKernel(results={"prctl": prctl})
    assert execute([ops.Clone(0), ops.BoundingSet(0b010)], kernel)[0]
    drops = [
        call.arguments[1]
        for call in kernel.calls
        if call.name == "prctl" and call.arguments[0] == linux.PR_CAPBSET_DROP
    ]
    assert drops == [0, 2]


@pytest.mark.parametrize(
    ("groups", "says", "done"),
    [((), b"deny\n", True), ((), b"allow\n", False), ((7,), b"deny\n", False)],
)
def test_setgroups_may_fail_only_where_nobody_can_have_groups(
    groups: tuple[int, ...], says: bytes, done: bool
) -> None:
    kernel = FakeKernel(results={"setgroups": failing(errno.EPERM), "read": says})
    assert execute([ops.Clone(0), ops.Identity(1, 1, groups)], kernel)[0] is done


@pytest.mark.parametrize(
    "operation",
    [
        ops.Identity(-1, 0, ()),
        ops.Identity(0, 2**32 - 1, ()),
        ops.Identity(0, 0, (-1,)),
        ops.MakeDirectory("/a", 0o755, -1),
        ops.MakeNode("/a", 0, 1, 3, 0, -1),
        ops.Stdio(-1, 0),
        ops.Chdir("/a", 1, -1),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_an_id_that_would_leave_root_in_place_is_refused(operation: Operation) -> None:
    kernel = FakeKernel()
    _, reports = execute([ops.Clone(0), operation], kernel)
    assert reports.sent[-1][:3] == (protocol.FAILED, 1, errno.EINVAL)
    assert set(kernel.names) <= {"prctl", "clone3"}


@pytest.mark.parametrize("size", [0, 7, 12, 8 * 4097])
def test_a_filter_of_a_wrong_size_is_refused(size: int) -> None:
    kernel = FakeKernel()
    _, reports = execute([ops.Clone(0), ops.Seccomp(bytes(size))], kernel)
    assert reports.sent[-1][:3] == (protocol.FAILED, 1, errno.EINVAL)


def test_a_kernel_without_keys_is_no_failure() -> None:
    program = [ops.Clone(0), ops.SessionKeyring("ctr")]
    without = {"join_session_keyring": failing(errno.ENOSYS)}
    full = {"join_session_keyring": failing(errno.EDQUOT)}
    assert execute(program, FakeKernel(results=without))[0]
    assert not execute(program, FakeKernel(results=full))[0]


def test_a_sysctl_goes_through_the_procfs_that_was_mounted() -> None:
    kernel = FakeKernel()
    magic = iter((EXT4, linux.PROC_SUPER_MAGIC))
    kernel.results["fstype_magic"] = lambda fd: next(magic)
    program = [ops.Clone(0), ops.MountAt("proc", "/proc"), ops.Sysctl("kernel/x", "1")]
    assert execute(program, kernel)[0]
    copy = kernel.names.index("open_tree")
    folder, file = [call for call in kernel.calls[copy:] if call.name == "openat2"]
    assert folder.arguments[:2] == (1000 + copy + 1, "sys")
    assert file.keywords["resolve"] == linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS


def test_what_the_kernel_logged_is_the_detail() -> None:
    results = {"fsconfig_flag": failing(errno.EINVAL), "fs_messages": "overlay: no"}
    _, reports = execute([ops.NewMount(0, "overlay", "", ("x",))], FakeKernel(results=results))
    assert reports.sent[-1] == (protocol.FAILED, 0, errno.EINVAL, "overlay: no")


END: list[Operation] = [ops.Clone(0), ops.Sync(1), ops.Exec(("true",), (), "")]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            [ops.Setns(0, linux.CLONE_NEWNET), *END],
            "reference launcher: only the compiled one can join",
        ),
        ([*END[:2], ops.Init(), END[2]], "reference launcher: only the compiled one can stay"),
        ([ops.PivotRoot().at(Phase.PREPARE), *END], "operation 0, PivotRoot, in phase PREPARE"),
        ([ops.Unshare(0).at(Phase.WATCH), *END], "operation 0, Unshare, in phase WATCH"),
        ([*END[:2], ops.OomScore(0).at(Phase.LAST), END[2]], "OomScore, in phase LAST"),
        ([ops.Sync(1).at(Phase.PREPARE), *END], "Sync, in phase PREPARE"),
        ([ops.Clone(0).at(Phase.PREPARE), *END], "Clone, in phase PREPARE"),
        ([*END[:2], ops.OomScore(1), END[2]], "its parent ends before"),
        ([], "one Clone and, last, one Exec"),
        ([*END, ops.PivotRoot().at(Phase.LAST)], "one Clone and, last, one Exec"),
        ([END[0], *END], "one Clone and, last, one Exec"),
        (END[1:], "one Clone and, last, one Exec"),
    ],
)
def test_what_is_not_served_is_refused(program: list[Operation], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        check(program)


@pytest.mark.parametrize(
    "operation",
    [
        ops.JoinCgroup(-1),
        ops.MoveMount(256, "/x"),
        ops.MaskPath("/x", -1),
        ops.MountAttr(0, 0, userns=-2),
        ops.MountAttr(0, 0, userns=256),
    ],
)
def test_slots_that_no_launcher_has_are_refused(operation: Operation) -> None:
    program = sorted([*END, operation], key=lambda item: item.phase)
    with pytest.raises(InvalidError, match=r"no slot \[-?\d+\]"):
        check(program)


def test_what_python_refuses_is_a_failure_too() -> None:
    kernel = FakeKernel(results={"umask": os.umask})
    _, reports = execute([ops.Clone(0), ops.Umask(2**70)], kernel)
    assert reports.sent[-1][:3] == (protocol.FAILED, 1, errno.EINVAL)


def test_the_whole_program_is_served() -> None:
    check(PROGRAM)
    assert {operation.side for operation in PROGRAM} == set(Side)
