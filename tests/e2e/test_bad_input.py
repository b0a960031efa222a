"""Wrong input is one line, a hint where one helps, the right exit status, and nothing left."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

V2_CONTROLLERS = os.path.exists("/sys/fs/cgroup/cgroup.controllers")

CASES = [
    ((), "missing argument 'IMAGE'"),
    (("--nosuch", "base"), "unknown flag --nosuch"),
    (("-m", "1x", "base"), "cannot use --memory '1x': not a size"),
    (("-m", "1m", "base"), "cannot use --memory 1m: the least is 6m"),
    (("--memory-swap", "1g", "base"), "cannot use --memory-swap: it needs --memory as well"),
    (("--cpus", "99999", "base"), "cannot use --cpus 99999: the range is from 0.01"),
    (("--cpuset-cpus", "7777", "base", "true"), "cannot set cpuset.cpus of "),
    (("--cgroup-parent", "../../x", "base"), "cannot use --cgroup-parent '../../x': it holds .."),
    (("--cgroup-conf", "memory.nosuch=1", "base"), "cannot set memory.nosuch: "),
    (("nosuchimage",), "cannot find image 'nosuchimage'"),
    (("Bad//Image",), "cannot use 'Bad//Image' as an image name: "),
    (("--network", "nosuch", "base"), "cannot find network 'nosuch': known are "),
    (("--network", "container:nosuch", "base"), "cannot find container 'nosuch'"),
    (("--pid", "container:", "base"), "cannot use --pid 'container:': not private, host, "),
    (("--userns", "nosuch", "base"), "cannot use --userns 'nosuch': not private or host"),
    (("--uidmap", "0:1", "base"), "cannot use --uidmap '0:1': not INSIDE:OUTSIDE:SIZE"),
    (("--uidmap", "1:1:5", "base"), "cannot use the id map: it does not map id 0 inside"),
    (("--privileged", "--userns", "private", "base"), "cannot use --privileged: "),
    (("--device", "/dev/nosuch", "base"), "cannot use device /dev/nosuch: "),
    (("--device-cgroup-rule", "x", "base"), "cannot use device rule 'x': "),
    (("--ulimit", "nosuch=1", "base"), "cannot use ulimit 'nosuch': there is no such limit"),
    (("--cap-add", "NOSUCH", "base"), "cannot use capability 'NOSUCH': "),
    (("-u", "nosuch", "base"), "unable to find user nosuch: no matching entries in passwd file"),
    (("--group-add", "nosuch", "base"), "unable to find group nosuch"),
    (("-w", "relative", "base"), "cannot use --workdir 'relative': "),
    (("--env-file", "/no/such", "base"), "cannot read --env-file /no/such: "),
    (("--sysctl", "foo", "base"), "cannot use sysctl 'foo': it is not NAME=VALUE"),
    (("--sysctl", "net.ipv4.nosuch=1", "base", "true"), "cannot start "),
    (("--hostname", "a", "--uts", "host", "base"), "cannot use --hostname: it conflicts"),
    (("--time-offset", "x=1", "base"), "cannot use --time-offset 'x=1': "),
    (("--security-opt", "nosuch", "base"), "cannot use --security-opt 'nosuch': unknown"),
    (("--security-opt", "seccomp=/no/such", "base"), "cannot read seccomp profile /no/such: "),
    (("-v", "/a:b", "base"), "cannot use --volume '/a:b': the target must be an absolute path"),
    (
        ("-v", "/proc:/proc", "base"),
        "cannot use --volume '/proc:/proc': mounts on /proc are refused",
    ),
    (("-v", "/etc/passwd:/etc", "base", "true"), "cannot start "),
    (("--stop-signal", "NOSUCH", "base"), "cannot use --stop-signal 'NOSUCH': no such signal"),
    (("--name", "a/b", "base"), "cannot use --name 'a/b': "),
    (("--add-host", "nosuch", "base"), "cannot add host 'nosuch': "),
    (("--entrypoint", "", "base"), "cannot run: no command specified"),
]


@pytest.mark.parametrize(
    ("flags", "message"),
    CASES,
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_run(ctr, flags: tuple[str, ...], message: str) -> None:
    result = ctr.run(*flags)
    assert result.status == 125
    assert result.out == ""
    first, *rest = result.err.splitlines()
    assert first.startswith(f"ctr: {message}")
    assert len(rest) <= 1
    assert all(line.startswith("hint: ") for line in rest)
    assert ctr("ps", "-a", "-q").out == ""
    assert ctr("volume", "ls", "-q").out == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("frobnicate",), "unknown command 'frobnicate'"),
        (("rm", "nosuch"), "cannot find container 'nosuch'"),
        (("inspect", "nosuch"), "cannot find container 'nosuch'"),
        (("image", "rm", "nosuch"), "cannot find image 'nosuch'"),
        (("image", "import", "/no/such", "x"), "cannot read '/no/such': "),
        (("image", "load", "-i", "/etc/passwd"), "cannot load '/etc/passwd': "),
        (("volume", "rm", "nosuch"), "cannot remove volume nosuch: no such volume"),
        (("plugin", "inspect", "nosuch"), "cannot "),
    ],
)
def test_other_commands_exit_1(ctr, args: tuple[str, ...], message: str) -> None:
    result = ctr(*args)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith(f"ctr: {message}")


@pytest.mark.parametrize(
    ("flag", "name", "message"),
    [
        ("--storage", "nosuch", "cannot find storage driver 'nosuch': installed: overlay, vfs (chosen by --storage)"),
        ("--network-driver", "nosuch", "cannot find network driver 'nosuch': installed: bridge"),
        ("--cgroups", "nosuch", "cannot find cgroup driver 'nosuch': installed: v1, v2"),
        ("--storage-opt", "nosuch=1", "cannot use option 'nosuch' of driver overlay: there is no such option"),
    ],
)  # fmt: skip
def test_unknown_drivers_and_options(ctr, flag: str, name: str, message: str) -> None:
    extra = [] if "driver" not in flag else ["--network", "bridge"]
    result = ctr(flag, name, "run", "--rm", *(extra or ["--network", "none"]), "base", "true")
    assert result.status == 125
    assert result.err.startswith(f"ctr: {message}")


def test_an_explicit_choice_that_cannot_work_says_why(ctr) -> None:
    name, reason = ("v1", "no cgroup v1 ") if V2_CONTROLLERS else ("v2", "cgroup v2 is ")
    result = ctr("--cgroups", name, "run", "--rm", "--network", "none", "base", "true")
    assert result.status == 125
    first, hint = result.err.splitlines()
    assert first.startswith(f"ctr: cannot use cgroup driver {name} (chosen by --cgroups): {reason}")
    assert hint.startswith("hint: the others: v")


def test_an_unwritable_root() -> None:
    argv = [sys.executable, "-m", "ctr", "--root", "/proc/x", "run", "--network", "none", "base"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith("ctr: cannot ")
    assert "Traceback" not in done.stderr


def test_lack_of_root(ctr) -> None:
    # The user may be kept from the files of this environment: they are read before.
    command = (
        "import os, sys; import ctr.cli.run, ctr.cli.engine, ctr.engine, ctr.relay; "
        "os.setgroups([]); os.setgid(1000); os.setuid(1000); "
        "from ctr.__main__ import main; main()"
    )
    python, _, _, *arguments = ctr.argv("run", "base", "true")
    done = subprocess.run(
        [python, "-c", command, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == 125
    first, hint = done.stderr.splitlines()
    assert first.startswith("ctr: cannot ")
    assert "sudo" in hint or "root" in hint


def test_a_full_disk(tmp_path, ctr_root) -> None:
    """A root on a small tmpfs fills up in the middle of a start: nothing half-made stays."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=True)
    try:
        tiny = type(ctr_root)(str(small))
        result = tiny("run", "--rm", "--network", "none", "base", "true")
        assert result.status == 125
        assert result.err.startswith("ctr: ")
        assert "No space left on device" in result.err or "full" in result.err
        assert "Traceback" not in result.err
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_debug_adds_a_traceback(ctr) -> None:
    result = ctr("--debug", "run", "--network", "none", "nosuchimage")
    assert result.status == 125
    assert "Traceback" in result.err
    assert result.err.splitlines()[-2] == "ctr: cannot find image 'nosuchimage'"


def test_a_missing_driver_can_be_lived_with(ctr, tmp_path) -> None:
    """A container whose driver was uninstalled is listed, explained, and can be removed."""
    made = ctr("--storage", "vfs", "run", "--network", "none", "--name", "orphaned", "base", "true")
    assert made.status == 0
    # An interpreter that does not see the plugin, as after `pip uninstall`.
    script = (
        "import sys; from ctr import plugin_index as p; real = p.load\n"
        "p.load = lambda folder: [x for x in real(folder) if x.name != 'storage-vfs']\n"
        "from ctr.__main__ import main; main()"
    )

    def without(*args: str) -> subprocess.CompletedProcess[str]:
        argv = ctr.argv(*args)
        return subprocess.run(
            [argv[0], "-c", script, *argv[3:]], capture_output=True, text=True, check=False
        )

    assert "orphaned" in without("ps", "-a").stdout
    assert without("inspect", "orphaned").returncode == 0
    refused = without("rm", "orphaned")
    assert refused.returncode == 1
    assert "cannot release what storage driver vfs holds" in refused.stderr
    assert "install ctr-storage-vfs again, or `ctr rm -f`" in refused.stderr
    assert "orphaned" in without("ps", "-a").stdout
    forced = without("rm", "-f", "orphaned")
    assert forced.returncode == 0
    assert "is left in" in forced.stderr
    assert ctr("ps", "-a", "-q").out == ""
    assert "vfs" in ctr("system", "gc").out
