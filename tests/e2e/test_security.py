"""What a container can't do, each tried from the inside, by a hostile command."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from ctr.security import paths

if TYPE_CHECKING:
    from .conftest import Arena

pytestmark = pytest.mark.root

TOOLS = ("--network", "none", "tools")
#: Paths of the default lists that this kernel has.
MASKED = [path for path in paths.masked() if os.path.exists(path)]
READONLY = [path for path in paths.READONLY if os.path.exists(path)]


@pytest.fixture
def secret(tmp_path) -> str:
    """A file of the host's root alone."""
    path = tmp_path / "secret"
    path.write_text("the host's secret")
    path.chmod(0o600)
    return str(path)


def sh(arena: Arena, script: str, *flags: str, **env: str) -> list[str]:
    """The lines that a script prints in a container."""
    result = arena.run(*flags, "tools", "sh", "-c", script, **env)
    assert result.status == 0, result
    return result.out.splitlines()


# -- descriptors --------------------------------------------------------------------------


@pytest.fixture
def leaked(secret: str):
    """Descriptors of the host that whoever calls ctr has left open for it."""
    first = os.open(os.path.dirname(secret), os.O_RDONLY | os.O_DIRECTORY)
    numbers = [fcntl.fcntl(first, fcntl.F_DUPFD, number) for number in (20, 100, 300)]
    yield (first, *numbers)
    for number in (first, *numbers):
        os.close(number)


@pytest.mark.parametrize("flags", [[], ["--init"], ["-i"]])
def test_no_descriptor_comes_along(arena, leaked, flags) -> None:
    process = arena.spawn(
        "run", "--rm", *flags, *TOOLS, "sh", "-c", "probe descriptors; ls /proc/1/fd; true",
        pass_fds=leaked,
    )  # fmt: skip
    out, err = process.communicate(timeout=30)
    of_command, *of_init = out.decode().split("\n", 1)
    assert of_command == "0 1 2 ", err
    # The shell that is PID 1 has its three streams, ctr's init nothing.
    assert of_init[0].split() == ([] if flags == ["--init"] else ["0", "1", "2"])


@pytest.mark.parametrize("number", [3, 5, 7, 8, 9, 12, 20, 100, 300])
def test_a_working_directory_is_no_descriptor(arena, leaked, number) -> None:
    """CVE-2024-21626: what a launcher holds open is a way out by its number."""
    process = arena.spawn(
        "run", "--rm", "-w", f"/proc/self/fd/{number}", *TOOLS, "cat", "secret", pass_fds=leaked
    )
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (125, b"")
    assert err.startswith(b"ctr: cannot ")


def test_the_callers_folder_and_environment_stay_outside(arena, secret) -> None:
    process = arena.spawn(
        "run", "--rm", "--init", *TOOLS, "sh", "-c",
        "readlink /proc/self/cwd; pwd; cat secret ../secret; cat /proc/1/environ; env",
        cwd=os.path.dirname(secret), env={**os.environ, "TOKEN": "the caller's"},
    )  # fmt: skip
    out = process.communicate(timeout=30)[0]
    assert out.startswith(b"/\n/\n")
    assert b"secret" not in out
    assert b"TOKEN" not in out
    assert sh(arena, "echo $TOKEN", "-e", "TOKEN", TOKEN="handed on") == ["handed on"]


# -- privileges ---------------------------------------------------------------------------


def test_nothing_is_inherited_of_the_callers_capabilities(arena) -> None:
    """CVE-2022-29162, CVE-2022-24769: neither inheritable nor ambient."""
    caller = ["setpriv", "--inh-caps", "+chown,+sys_admin", "--ambient-caps", "+sys_admin"]
    command = [*arena.argv("run", "--rm", *TOOLS), "grep", "Cap", "/proc/self/status"]
    own, inside = (
        subprocess.run([*caller, *last], capture_output=True, text=True, check=True).stdout
        for last in (["grep", "Cap", "/proc/self/status"], command)
    )
    masks = {line.split()[0]: int(line.split()[1], 16) for line in inside.splitlines()}
    assert masks["CapInh:"] == masks["CapAmb:"] == 0
    assert masks["CapBnd:"] >> 21 & 1 == 0
    assert "CapAmb:\t0000000000000000" not in own  # else there was nothing to inherit


def test_init_is_as_confined_as_the_command(arena) -> None:
    flags = ["--init", "-u", "1000:2000", "--security-opt", "no-new-privileges"]
    wanted = "grep -E '^(Uid|Gid|Groups|Cap|Seccomp|NoNewPrivs)'"
    lines = sh(arena, f"{wanted} /proc/1/status; {wanted} /proc/self/status", *flags)
    half = len(lines) // 2
    assert lines[:half] == lines[half:]
    assert "Uid:\t1000\t1000\t1000\t1000" in lines
    assert "Seccomp:\t2" in lines


def test_a_set_user_id_program_is_powerless(arena) -> None:
    nnp = ["--security-opt", "no-new-privileges"]
    assert sh(arena, "probe-suid ids", "-u", "1000") == ["1000 0"]
    assert sh(arena, "probe-suid ids", "-u", "1000", *nnp) == ["1000 1000"]


def test_system_calls_are_refused(arena) -> None:
    def errors(*flags: str) -> dict[str, str]:
        return dict(line.split() for line in sh(arena, "probe calls", *flags))

    refused = errors()
    assert refused.pop("ptrace") == "0"
    assert refused.pop("clone3") == "ENOSYS"
    assert set(refused.values()) == {"EPERM"}
    # By the filter, not by something else: without it the kernel has other answers.
    open_ = errors("--security-opt", "seccomp=unconfined", "--cap-add", "ALL")
    assert "EPERM" not in open_.values(), open_


def test_the_keyring_is_the_containers(arena) -> None:
    keyring = "probe keyring"
    inside = [sh(arena, keyring, "--security-opt", "seccomp=unconfined")[0] for _ in range(2)]
    outside = subprocess.run(
        [arena.probe, "keyring"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert len({*inside, outside}) == 3
    assert all(int(number) > 0 for number in inside)


# -- files of the kernel --------------------------------------------------------------------


@pytest.mark.parametrize("over", [[], ["-v", "/sys:/sys"], ["-v", "/sys/firmware:/sys/firmware"]])
def test_masked_paths_are_empty(arena, over) -> None:
    files = [path for path in MASKED if not os.path.isdir(path)]
    assert files
    assert sh(arena, "".join(f"probe read {path};" for path in files), *over) == [
        "empty" for _ in files
    ]
    folders = [path for path in MASKED if os.path.isdir(path)]
    assert folders
    assert sh(arena, "".join(f"ls -A {path};" for path in folders), *over) == []


def test_read_only_paths(arena) -> None:
    files = [
        *(path for path in READONLY if not os.path.isdir(path)),
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/drop_caches",
        "/sys/kernel/uevent_helper"
        if os.path.exists("/sys/kernel/uevent_helper")
        else "/sys/power/state",
    ]
    script = "".join(f"probe overwrite {path};" for path in files)
    assert set(sh(arena, script)) == {"EROFS"}
    script = (
        "for group in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $group/x && echo made; done; true"
    )
    assert sh(arena, script) == []


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/proc/self/x", "//proc/", "/x/../proc"])
def test_no_mount_on_procfs(arena, tmp_path, target) -> None:
    for flags in (["-v", f"{tmp_path}:{target}"], ["--tmpfs", target], ["-v", target]):
        result = arena.run(*flags, "tools", "true")
        assert result.status == 125
        assert "mounts on /proc are refused" in result.err


def test_dev_is_minimal(arena) -> None:
    assert sorted(sh(arena, "ls /dev")) == sorted(
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
    )


def test_devices_that_are_made_cannot_be_opened(arena) -> None:
    """A number without a driver: only the control group knows to refuse it."""
    script = "for kind in c b; do mknod /dev/$kind $kind 240 0 && probe read /dev/$kind; done"
    assert sh(arena, script) == ["EPERM", "EPERM"]
    assert sh(arena, script, "--device-cgroup-rule", "a *:* rwm") != ["EPERM", "EPERM"]
    assert sh(arena, "mknod /tmp/null c 1 3 && probe read /tmp/null") == ["empty"]


# -- the host's processes, network and files ----------------------------------------------------


def test_processes_of_the_host(arena) -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        try:
            script = f"probe attach {victim.pid}; kill -9 {victim.pid} || echo unknown; kill -9 -1; echo /proc/[0-9]*"
            lines = sh(arena, script)
            assert lines[:2] == ["ESRCH", "unknown"]
            assert len(lines[2].split()) <= 2
            # Where they are to be seen, they can't be looked into.
            script = f"probe attach {victim.pid}; probe read /proc/{victim.pid}/environ; ls /proc/{victim.pid}/root/"
            result = arena.run("--pid", "host", "tools", "sh", "-c", script)
            assert result.out.split() == ["EPERM", "EACCES"], result
            assert victim.poll() is None
        finally:
            victim.kill()


def test_abstract_sockets_of_the_host(arena) -> None:
    """CVE-2020-15257."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0ctr-test")
        server.listen()
        assert sh(arena, "probe reach ctr-test", "--network", "none") == ["ECONNREFUSED"]
        assert sh(arena, "probe reach ctr-test", "--network", "host") == ["connected"]


def test_leaving_by_chroot(arena, secret) -> None:
    assert sh(arena, f"probe leave {secret}") == ["gone there"]


def test_root_of_a_user_namespace_is_nobody_outside(arena, tmp_path, secret) -> None:
    """Not even with every capability: they are those of the namespace."""
    tmp_path.chmod(0o777)
    script = (
        "touch /mnt/new; cat /mnt/secret || echo no; chmod 666 /mnt/secret || echo no;"
        " mknod /mnt/disk b 8 0 || echo no; probe overwrite /proc/sys/kernel/core_pattern"
    )
    flags = ["--userns", "private", "--cap-add", "ALL", "-v", f"{tmp_path}:/mnt"]
    assert sh(arena, script, *flags) == ["no", "no", "no", "EACCES"]
    made = os.stat(tmp_path / "new")
    assert (made.st_uid, made.st_gid) == (100000, 100000)
    assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600


def test_state_is_closed_to_other_users(arena) -> None:
    sh(arena, "echo mine > /data/x", "-v", "closed:/data")
    for folder in (arena.root, arena.run_root):
        assert stat.S_IMODE(os.stat(folder).st_mode) & 0o077 == 0, folder
    assert arena("volume", "rm", "closed").status == 0


def test_the_launcher_cannot_be_overwritten(arena) -> None:
    """CVE-2019-5736, as ctr's init, the one process of ctr that a container can see."""
    assert sh(arena, "probe overwrite /proc/1/exe x", "--init") == ["EACCES"]
    script = "readlink /proc/1/exe; probe overwrite /proc/1/exe x"
    name, error = sh(arena, script, "--init", "--privileged")
    assert name.startswith("/memfd:")
    assert error in ("EPERM", "ETXTBSY")


# -- containers that do not want to end -----------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "script"),
    [
        (["--pids-limit", "50"], "probe bomb"),
        ([], "trap '' TERM INT HUP QUIT; while :; do sleep 1; done"),
        (["--init"], "trap '' TERM INT HUP QUIT; while :; do sleep 1; done"),
        ([], "exec yes"),
        ([], "while :; do sh -c 'kill -9 -1'; done"),
    ],
)  # fmt: skip
def test_what_does_not_want_to_end(arena, flags, script) -> None:
    process = arena.spawn(
        "run", "--rm", "--name", "unwilling", *flags, *TOOLS, "sh", "-c", f"echo up; {script}"
    )
    try:
        assert process.stdout.read(3) == b"up\n"
        pid = json.loads(arena("inspect", "unwilling").out)[0]["State"]["Pid"]
        process.terminate()  # ctr passes it on
        time.sleep(0.5)
        assert process.poll() is None
        started = time.monotonic()
        assert arena("rm", "-f", "unwilling").status == 0
        process.communicate(timeout=20)  # of what it printed, ctr passes on the rest
        assert process.returncode == 137
        assert time.monotonic() - started < 10
        assert not os.path.exists(f"/proc/{pid}")
        assert arena("ps", "-a", "-q").out == ""
    finally:
        arena("rm", "-f", "unwilling")
        process.kill()
        process.communicate()
