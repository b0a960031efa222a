"""The options, and what importing the driver costs."""

from __future__ import annotations

import subprocess
import sys

import attrs
import pytest

from ctr_net_bridge import ctr_network_drivers
from ctr_net_bridge.driver import link_group
from ctr_net_bridge.options import Options


def test_defaults() -> None:
    assert Options() == Options(nat=True, mtu=1500, subnet="", bridge="")


def test_every_option_has_help() -> None:
    for field in attrs.fields(Options):
        assert field.metadata["help"]


def test_declared_options() -> None:
    (info,) = ctr_network_drivers()
    assert info.options == f"{Options.__module__}:{Options.__name__}"


@pytest.mark.parametrize("wrong", [{"mtu": 67}, {"mtu": 65536}, {"bridge": "a/b"}])
def test_wrong_values(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"mtu|bridge"):
        Options(**wrong)  # type: ignore[arg-type]


def test_groups_differ_and_are_large() -> None:
    groups = {link_group(root) for root in ("/var/lib/ctr/network/bridge", "/other", "")}
    assert len(groups) == 3
    assert all(1 << 30 <= group < 1 << 31 for group in groups)


def test_attach_imports_little() -> None:
    """The driver is on the path of every run: only rare commands may import more."""
    code = (
        "import sys, ctr_net_bridge.driver, ctr.ipam, ctr.netfiles;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"asyncio", "pyroute2", "ipaddress", "subprocess", "attrs", "attr", "logging"}
    assert not heavy & set(done.stdout.split())
    code = "import sys, ctr_net_bridge.driver; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"importlib.metadata", "ctr_net_bridge.nat"} & set(done.stdout.split())
