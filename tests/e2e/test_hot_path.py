"""``ctr run`` imports what it uses and nothing else: each of these costs 5 to 100 ms."""

from __future__ import annotations

import os
import subprocess

import pytest

from ctr.drivers import DriverContext
from ctr_cgroups import ctr_cgroup_drivers

pytestmark = pytest.mark.root

DUMP = (
    "import atexit, sys; from ctr.__main__ import main\n"
    "atexit.register(lambda: print('MODULES', *sys.modules, file=sys.stderr)); main()"
)
NEVER = {
    "asyncio",
    "attr",
    "ctypes",
    "importlib.metadata",
    "ipaddress",
    "locale",
    "logging",
    "pathlib",
    "pyroute2",
    "rich",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "tomllib",
    "ctr.kernel",
    "ctr.images.unpack",
    "ctr.launcher.reference",
    "ctr.security.seccomp.compiler",
    "ctr_storage_vfs",
}
NOWHERE = DriverContext(root="/nonexistent/ctr", run_root="/nonexistent/ctr-run")


@pytest.fixture
def never() -> set[str]:
    """Both versions of control groups have a driver; v2 tells of devices by bpf(2), by ctypes."""
    usable = [info.name for info in ctr_cgroup_drivers() if info.probe(NOWHERE).ok]
    if os.environ.get("CTR_CGROUPS", usable[0]) == "v1":
        return {*NEVER, "ctr_cgroups.v2"}
    return {*NEVER, "ctr_cgroups.v1"} - {"ctypes"}


def modules(ctr, *args: str) -> set[str]:
    argv = ctr.argv(*args)
    command = [argv[0], "-c", DUMP, *argv[3:]]
    subprocess.run(command, capture_output=True, check=True)  # caches are warm after this
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("MODULES"))
    return set(line.split())


def test_run_without_a_network(ctr, never) -> None:
    found = modules(ctr, "run", "--rm", "--network", "none", "base", "true")
    assert not found & (never | {"ctr_net_bridge"})


def test_run_on_an_existing_network(ctr, never) -> None:
    found = modules(ctr, "run", "--rm", "--network", "bridge", "base", "true")
    # Attaching enters the container's namespace, by ctypes.
    assert not found & (never - {"ctypes", "ctr.kernel"})
    assert not {name for name in found if name.startswith("ctr_net_bridge.nat")}


def test_help_imports_no_command(ctr) -> None:
    found = modules(ctr, "--help")
    assert not {name for name in found if name.startswith("ctr.cli.")} - {"ctr.cli.main"}
    assert not found & {"pluggy", "sqlite3", "ctr.engine"}
