"""``ctr run`` as a user of docker expects it, with each of the matrix's drivers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest

from ctr.security import capabilities

pytestmark = [pytest.mark.root, pytest.mark.matrix]


def test_hello_world(ctr) -> None:
    assert ctr.run("base", "echo", "Hello World") == (0, "Hello World\n", "")


def test_exit_status_and_streams(ctr) -> None:
    result = ctr.run("base", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert result == (7, "out\n", "err\n")


def test_a_signalled_command_exits_128_plus_signal(ctr) -> None:
    assert ctr.run("base", "sh", "-c", "sh -c 'kill -9 $$'; exit $?").status == 137


def test_standard_input(ctr) -> None:
    text = "x" * 300_000 + "\n"
    assert ctr.run("-i", "base", "cat", stdin=text) == (0, text, "")
    assert ctr.run("base", "cat", stdin="ignored") == (0, "", "")


def test_large_output_is_complete(ctr) -> None:
    result = ctr.run(
        "base", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    )
    assert result.out.splitlines() == [f"line {i}" for i in range(20000)]


def test_a_reader_that_goes_away(ctr) -> None:
    process = ctr.spawn(
        "run",
        "--rm",
        "--network",
        "none",
        "base",
        "sh",
        "-c",
        "yes | head -c 3000000; echo end >&2",
    )
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == b"end\n"
    process.stderr.close()


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (["nosuch"], 127, 'cannot execute "nosuch": executable file not found in $PATH'),
        (["/no/such"], 127, 'cannot execute "/no/such": no such file or directory'),
        (["/etc"], 126, 'cannot execute "/etc": permission denied'),
        (["/etc/passwd"], 126, 'cannot execute "/etc/passwd": permission denied'),
    ],
)
def test_commands_that_cannot_run(ctr, command, status, message) -> None:
    result = ctr.run("base", *command)
    assert result.status == status
    assert result.err.splitlines()[0] == f"ctr: {message}"
    assert ctr("ps", "-a", "-q").out == ""


def test_identity_hostname_and_cgroup(ctr) -> None:
    result = ctr.run(
        "--cgroupns", "private", "base", "sh", "-c", "echo $$; hostname; id -u; cat /proc/1/cgroup"
    )
    pid, hostname, uid, *groups = result.out.splitlines()
    assert (pid, uid) == ("1", "0")
    if os.environ.get("CTR_TEST_NETWORK") == "host":
        assert hostname == os.uname().nodename
    else:
        assert re.fullmatch(r"[0-9a-f]{12}", hostname)
    assert groups
    assert all(line.endswith(":/") for line in groups)


def test_environment_workdir_user(ctr, tmp_path) -> None:
    file = tmp_path / "env"
    file.write_text("FROM_FILE=1\n")
    result = ctr.run(
        "-e", "A=b c", "--env-file", str(file), "-w", "/new/dir", "-u", "1000:2000", "--group-add", "33",
        "base", "sh", "-c", 'echo "$A|$FROM_FILE|$HOME|$PWD"; id -u; id -g; id -G',
    )  # fmt: skip
    assert result.out.splitlines() == ["b c|1|/|/new/dir", "1000", "2000", "2000 33"]


def test_entrypoint(ctr) -> None:
    assert ctr.run("--entrypoint", "echo", "base", "a", "b").out == "a b\n"


def test_hostname_options(ctr) -> None:
    result = ctr.run(
        "-h",
        "box",
        "--domainname",
        "lan",
        "base",
        "sh",
        "-c",
        "hostname; cat /proc/sys/kernel/domainname",
    )
    if os.environ.get("CTR_TEST_NETWORK") == "host":
        return
    assert result.out.split() == ["box", "lan"]


def test_the_network_of_a_host_without_a_name(ctr) -> None:
    argv = ctr.argv("run", "--rm", "--network", "host", "base", "hostname")
    nameless = 'echo "(none)" > /proc/sys/kernel/hostname; exec "$@"'
    done = subprocess.run(
        ["unshare", "--uts", "sh", "-c", nameless, "sh", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert re.fullmatch(r"[0-9a-f]{12}\n", done.stdout), done.stderr


def test_writes_stay_in_the_container(ctr) -> None:
    assert (
        ctr.run("base", "sh", "-c", "rm /bin/true; echo x > /etc/marker; ls /bin/true").status == 1
    )
    assert ctr.run("base", "ls", "/etc/marker").status == 1
    assert ctr.run("base", "true").status == 0


def test_read_only(ctr) -> None:
    result = ctr.run(
        "--read-only", "--tmpfs", "/tmp", "base", "sh", "-c", "touch /tmp/x && touch /x"
    )
    assert result.status == 1
    assert "Read-only file system" in result.err


def test_bind_mounts(ctr, tmp_path) -> None:
    (tmp_path / "file").write_text("content")
    mount = f"{tmp_path}:/mnt"
    assert (
        ctr.run("-v", mount, "base", "sh", "-c", "cat /mnt/file; echo new > /mnt/new").out
        == "content"
    )
    assert (tmp_path / "new").read_text() == "new\n"
    assert ctr.run("-v", f"{mount}:ro", "base", "touch", "/mnt/x").status == 1
    assert ctr.run("-v", f"{tmp_path}/file:/etc/one", "base", "cat", "/etc/one").out == "content"
    missing = ctr.run("--mount", "type=bind,source=/no/such,target=/x", "base", "true")
    assert missing.status == 125
    assert missing.err.splitlines()[0] == (
        "ctr: cannot mount /no/such: bind source path does not exist"
    )


def test_volumes(ctr) -> None:
    assert ctr.run("-v", "vol1:/data", "base", "sh", "-c", "echo kept > /data/f").status == 0
    assert ctr.run("-v", "vol1:/data", "base", "cat", "/data/f").out == "kept\n"
    assert ctr("volume", "ls", "-q").out == "vol1\n"
    # The image's content is copied into an empty volume, with its owners and modes.
    assert ctr.run("-v", "vol2:/etc", "base", "sh", "-c", "cat /etc/passwd").out.startswith("root:")
    inside = json.loads(ctr("volume", "inspect", "vol2").out)[0]["Mountpoint"]
    assert os.path.exists(os.path.join(inside, "passwd"))
    assert ctr.run("-v", "vol3:/etc:nocopy", "base", "ls", "/etc/passwd").status == 1
    assert ctr("volume", "rm", "vol1", "vol2", "vol3").out == "vol1\nvol2\nvol3\n"
    # Anonymous ones go with --rm.
    assert ctr.run("-v", "/data", "base", "touch", "/data/x").status == 0
    assert ctr("volume", "ls", "-q").out == ""


def test_tmpfs_and_shm(ctr) -> None:
    result = ctr.run(
        "--tmpfs", "/scratch:size=1m,mode=700", "--shm-size", "8m",
        "base", "sh", "-c", "grep -E ' (/scratch|/dev/shm) ' /proc/mounts; stat -c %a /scratch",
    )  # fmt: skip
    lines = result.out.splitlines()
    assert any("/dev/shm" in line and "size=8192k" in line for line in lines)
    assert any("/scratch" in line and "size=1024k" in line for line in lines)
    assert lines[-1] == "700"


def test_init_reaps_and_forwards(ctr) -> None:
    result = ctr.run("--init", "base", "sh", "-c", "echo $$; exit 5")
    assert result.status == 5
    assert result.out != "1\n"


def test_a_machine_without_the_compiled_launcher(ctr) -> None:
    result = ctr.run("-i", "base", "sh", "-c", "cat; exit 3", stdin="in", CTR_LAUNCHER="reference")
    assert result == (3, "in", "")
    refused = ctr.run("--init", "base", "true", CTR_LAUNCHER="reference")
    assert refused.status == 125
    message, hint = refused.err.splitlines()
    assert message.startswith("ctr: cannot use the reference launcher: only the compiled one can ")
    assert hint == "hint: apt install gcc libc6-dev, then install ctr-core anew"


def test_limits(ctr) -> None:
    result = ctr.run(
        "--pids-limit",
        "10",
        "base",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait",
    )
    assert "fork" in result.err.lower()
    result = ctr.run("--ulimit", "nofile=64:128", "base", "sh", "-c", "ulimit -n; ulimit -Hn")
    assert result.out.split() == ["64", "128"]


def test_swap_is_limited_with_memory(ctr) -> None:
    look = "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/memory.swap.max"
    result = ctr.run("-m", "64m", "base", "sh", "-c", f"{look} 2>/dev/null")
    assert result.out.strip() in (str(128 << 20), str(64 << 20))  # v1 counts both together


def test_out_of_memory_is_told(ctr) -> None:
    result = ctr.run("-m", "64m", "base", "sh", "-c", "x=a; while :; do x=$x$x; done")
    assert result.status == 137, result
    assert "out of memory" in result.err


def test_sysctls(ctr) -> None:
    result = ctr.run("--sysctl", "kernel.msgmax=4096", "base", "cat", "/proc/sys/kernel/msgmax")
    assert result.out == "4096\n"
    refused = ctr.run("--sysctl", "kernel.panic=1", "base", "true")
    assert refused.status == 125
    assert refused.err.startswith("ctr: cannot set sysctl kernel.panic: ")


def test_namespaces_can_be_shared_with_the_host(ctr) -> None:
    command = ["base", "sh", "-c", "for n in pid ipc uts; do readlink /proc/self/ns/$n; done"]
    own = [os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "ipc", "uts")]
    shared = ctr.run("--pid", "host", "--ipc", "host", "--uts", "host", *command).out.split()
    assert shared == own
    private = ctr.run(*command).out.split()
    assert not set(private) & set(own)


def test_namespaces_of_another_container(ctr) -> None:
    process = ctr.spawn(
        "run",
        "--rm",
        "--name",
        "owner",
        "--network",
        "none",
        "base",
        "sh",
        "-c",
        "echo up; sleep 60",
    )
    try:
        assert process.stdout.readline() == b"up\n"
        names = "for n in net pid ipc; do readlink /proc/self/ns/$n; done"
        pid = json.loads(ctr("inspect", "owner").out)[0]["State"]["Pid"]
        result = ctr("run", "--rm", "--network", "container:owner", "--pid", "container:owner",
                     "--ipc", "container:owner", "base", "sh", "-c", names)  # fmt: skip
        assert result.out.split() == [
            os.readlink(f"/proc/{pid}/ns/{n}") for n in ("net", "pid", "ipc")
        ]
    finally:
        ctr("rm", "-f", "owner")
        process.communicate(timeout=20)


@pytest.mark.driver("namespace:time")
def test_time_namespace(ctr) -> None:
    with open("/proc/uptime") as file:
        up = float(file.read().split()[0])
    result = ctr.run("--time-offset", "boottime=86400", "base", "cat", "/proc/uptime")
    assert up + 86000 < float(result.out.split()[0]) < up + 90000


def test_user_namespace(ctr) -> None:
    process = ctr.spawn(
        "run", "--rm", "--name", "mapped", "--network", "none", "--userns", "private", "base", "sh", "-c",
        "id -u; stat -c %u /bin/sh /etc/hosts; touch /root/x && stat -c %u /root/x; mknod /tmp/n c 1 3 || echo no; sleep 60",
    )  # fmt: skip
    try:
        lines = [process.stdout.readline().decode().strip() for _ in range(5)]
        pid = json.loads(ctr("inspect", "mapped").out)[0]["State"]["Pid"]
        assert os.stat(f"/proc/{pid}").st_uid == 100000
    finally:
        ctr("rm", "-f", "mapped")
        process.communicate(timeout=20)
    assert lines == ["0", "0", "0", "0", "no"]


def test_capabilities_by_default_and_on_demand(ctr) -> None:
    def caps(*flags: str) -> dict[str, int]:
        out = ctr.run(*flags, "base", "grep", "Cap", "/proc/self/status").out
        return {line.split(":")[0]: int(line.split()[1], 16) for line in out.splitlines()}

    default = capabilities.DEFAULT
    assert caps() == {
        "CapInh": 0,
        "CapPrm": default,
        "CapEff": default,
        "CapBnd": default,
        "CapAmb": 0,
    }
    assert caps("--cap-drop", "ALL", "--cap-add", "net_raw")["CapEff"] == 1 << 13
    assert caps("-u", "1")["CapEff"] == 0
    own = capabilities.own_capabilities()
    assert caps("--privileged")["CapEff"] == own
    assert caps("--cap-add", "ALL")["CapEff"] == own


def test_a_capability_that_cannot_be_given(ctr) -> None:
    missing = ~capabilities.own_capabilities() & capabilities.ALL
    if not missing:
        return
    name = capabilities.names_of(missing)[0]
    result = ctr.run("--cap-add", name, "base", "true")
    assert result.status == 125
    assert f"cannot add capability {name}" in result.err


def test_signals_are_passed_on(ctr) -> None:
    process = ctr.spawn(
        "run",
        "--rm",
        "--network",
        "none",
        "base",
        "sh",
        "-c",
        "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.1; done",
    )
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == b"got\n"
    assert process.wait(20) == 3
    process.stdout.close()
    process.stderr.close()


def test_names(ctr) -> None:
    process = ctr.spawn(
        "run", "--rm", "--name", "web", "--network", "none", "base", "sh", "-c", "echo up; sleep 60"
    )
    try:
        process.stdout.readline()
        holder = ctr("ps", "-q", "--no-trunc").out.strip()
        result = ctr.run("--name", "web", "base", "true")
        assert result.status == 125
        assert result.err.splitlines()[0] == (
            f'ctr: cannot create container: the name "web" is already in use by container {holder}'
        )
        refused = ctr("rm", "web")
        assert refused.status == 1
        assert refused.err.startswith("ctr: cannot remove container web: it is running\nhint: ")
        row = ctr("ps").out.splitlines()[1]
        assert row.startswith(f"{holder[:12]}   base")
        assert row.endswith("web")
        state = json.loads(ctr("inspect", "web").out)[0]["State"]
        assert state["Running"]
        assert state["PidInside"] == 1
        assert os.path.exists(f"/proc/{state['Pid']}")
    finally:
        ctr("rm", "-f", "web")
        process.communicate(timeout=20)
    assert process.returncode == 137


def test_without_rm_the_container_stays(ctr) -> None:
    result = ctr(
        "run", "--network", "none", "--name", "stays", "base", "sh", "-c", "echo x > /kept; exit 4"
    )
    assert result.status == 4
    assert "Exited (4)" in ctr("ps", "-a").out
    state = json.loads(ctr("inspect", "stays").out)[0]["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 4, 0)
    assert ctr("rm", "stays").out == "stays\n"
    assert ctr("ps", "-a", "-q").out == ""


def test_a_killed_ctr_leaves_the_container_running(ctr) -> None:
    process = ctr.spawn(
        "run",
        "--rm",
        "--name",
        "orphan",
        "--network",
        "none",
        "base",
        "sh",
        "-c",
        "echo up; sleep 1; echo more; sleep 1",
    )
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=10)
    assert ctr("system", "gc").out == ""
    assert "orphan" in ctr("ps").out
    deadline = time.monotonic() + 20
    while ctr("ps", "-a", "-q").out:
        assert time.monotonic() < deadline, "--rm was not carried out"
        time.sleep(0.2)


def test_two_storage_drivers_side_by_side(ctr) -> None:
    processes = [
        subprocess.Popen(
            ctr.argv(
                "--storage",
                name,
                "run",
                "--rm",
                "--network",
                "none",
                "base",
                "sh",
                "-c",
                "echo $0 > /x; sleep 0.5; cat /x",
                name,
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("overlay", "vfs")
    ]
    assert [process.communicate(timeout=30)[0] for process in processes] == ["overlay\n", "vfs\n"]


def test_debug_names_each_operation(ctr) -> None:
    result = ctr("--debug", "run", "--rm", "--network", "none", "base", "true")
    assert result.status == 0
    assert "core: pivot_root into the new root and detach the old one" in result.err
    assert "namespaces: clone" not in result.err
    assert re.search(r"cgroups: open \S+/ctr/[0-9a-f]{64}", result.err)


def test_no_seccomp_means_none_and_default_means_a_filter(ctr) -> None:
    status = ["base", "grep", "Seccomp:", "/proc/self/status"]
    assert ctr.run(*status).out.split() == ["Seccomp:", "2"]
    assert ctr.run("--security-opt", "seccomp=unconfined", *status).out.split() == ["Seccomp:", "0"]
    nnp = ctr.run(
        "--security-opt", "no-new-privileges", "base", "grep", "NoNewPrivs", "/proc/self/status"
    )
    assert nnp.out.split() == ["NoNewPrivs:", "1"]
