"""OCI's hook points, from a plugin that was installed like any other."""

from __future__ import annotations

import json
import os

import pytest

pytestmark = pytest.mark.root

PLUGIN = """
import json, os
from ctr.hookspecs import hookimpl

def told(point, context):
    record = {"point": point, "pid": context.pid, "name": context.name}
    record["annotations"] = context.annotations
    record["bundle"] = os.path.isdir(context.bundle)
    if "net" in context.namespaces:
        record["net"] = os.readlink(f"/proc/self/fd/{context.namespaces['net']}")
    if context.pid:
        with open(f"/proc/{context.pid}/comm") as file:
            record["comm"] = file.read().strip()
    with open(os.environ["TOLD"], "a") as file:
        print(json.dumps(record), file=file)
    if os.environ.get("FAIL") == point:
        raise RuntimeError("as asked")

"""
POINTS = ["create_runtime", "create_container", "start_container", "poststart", "poststop"]


@pytest.fixture
def hooked(fresh, tmp_path):
    """Runs a container with the plugin installed; returns the result and what the plugin was told."""
    site = tmp_path / "site"
    info = site / "acme_hooks-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-hooks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ctr]\nacme = acme_hooks\n")
    hooks = [
        f"@hookimpl\ndef ctr_{point}(context):\n    told({point!r}, context)\n" for point in POINTS
    ]
    (site / "acme_hooks.py").write_text(PLUGIN + "\n".join(hooks))

    def run(*args, **environment):
        told = tmp_path / "told"
        told.write_text("")
        environment |= {
            "PYTHONPATH": str(site),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "TOLD": str(told),
        }
        result = fresh.run(*args, **environment)
        return result, [json.loads(line) for line in told.read_text().splitlines()]

    yield run
    assert fresh("ps", "-a", "-q").out == ""
    assert os.listdir(f"{fresh.root}/containers") == []


def test_each_point_in_its_turn(hooked) -> None:
    result, told = hooked("--annotation", "a=b", "--name", "web", "base", "sleep", "0.3")
    assert result == (0, "", "")
    assert [record["point"] for record in told] == POINTS
    pids = {record["pid"] for record in told[:4]}
    assert len(pids) == 1
    assert told[4]["pid"] == 0
    assert {record["name"] for record in told} == {"web"}
    assert all(record["annotations"] == {"a": "b"} for record in told[:4])
    assert all(record["bundle"] for record in told[:4])
    own = os.readlink("/proc/self/ns/net")
    networks = {record["net"] for record in told[:3]}
    assert len(networks) == 1
    assert own not in networks
    assert told[3]["comm"] == "sleep"  # the command runs
    assert told[2]["comm"] != "sleep"


@pytest.mark.parametrize("point", POINTS[:3])
def test_a_refusal_before_the_command_rolls_back(hooked, point) -> None:
    result, told = hooked("base", "echo", "ran", FAIL=point)
    assert (result.status, result.out) == (125, "")
    first, *_ = result.err.splitlines()
    assert first.startswith("ctr: cannot ")
    assert "as asked" in first
    assert "acme" in result.err
    assert told[-1]["point"] == point


@pytest.mark.parametrize("point", POINTS[3:])
def test_a_failure_after_the_command_began_is_a_warning(hooked, point) -> None:
    result, told = hooked("base", "sh", "-c", "echo ran; exit 3", FAIL=point)
    assert (result.status, result.out) == (3, "ran\n")
    assert result.err.startswith("ctr: warning: ")
    assert "as asked" in result.err
    assert [record["point"] for record in told] == POINTS
