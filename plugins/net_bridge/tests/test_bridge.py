"""What the bridge driver promises beyond the laws: rules, forwarding, ownership."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ctr.drivers import DriverContext
from ctr.errors import ConflictError, InvalidError, NotFoundError, UnsupportedError
from ctr.models import Network
from ctr.testing.network import (
    WORLD,
    Namespace,
    endpoint_of,
    ip,
    world,
)
from ctr_net_bridge import ctr_network_drivers, nat, netlink
from ctr_net_bridge.driver import BridgeNetwork, link_group
from ctr_net_bridge.options import Options

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.driver("network:bridge")]

NETWORK = Network("4e" * 32, "bridge", "bridge", "172.30.0.0/16", "172.30.0.1", "ctr0")
SECOND = NETWORK._replace(subnet="172.29.0.0/16", gateway="172.29.0.1", bridge="ctr1")
CONTEXT = DriverContext("/nonexistent/root", "/nonexistent/run")


@pytest.fixture(autouse=True)
def host() -> Iterator[Namespace]:
    host = Namespace()
    with host.inside():
        yield host
    host.close()


@pytest.fixture
def container(host: Namespace) -> Iterator[Namespace]:
    container = Namespace()
    yield container
    container.close()


@pytest.fixture
def driver(host: Namespace) -> BridgeNetwork:
    return BridgeNetwork(CONTEXT)


@pytest.fixture(params=["library", "program"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to nftables, each with the other one missing."""
    if request.param == "library":
        monkeypatch.setattr(nat, "_program", lambda: None)
    else:
        monkeypatch.setattr(nat, "_library", lambda: None)
    return str(request.param)


def ruleset() -> list[dict[str, Any]]:
    done = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, check=True)
    objects: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    return [one for one in objects if "metainfo" not in one]


def rules(chain: str) -> list[dict[str, Any]]:
    return [one["rule"] for one in ruleset() if one.get("rule", {}).get("chain") == chain]


def forwarding() -> str:
    with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as file:
        return file.read().strip()


def test_one_masquerade_rule_a_network(driver: BridgeNetwork, way: str) -> None:
    driver.create_network(NETWORK)
    driver.create_network(NETWORK)
    driver.create_network(SECOND)
    found = {rule["table"]: rule["expr"] for rule in rules("postrouting")}
    assert set(found) == {"ctr-ctr0", "ctr-ctr1"}
    assert len(rules("postrouting")) == 2
    source, interface, verdict = found["ctr-ctr0"]
    assert source["match"]["right"] == {"prefix": {"addr": "172.30.0.0", "len": 16}}
    assert (interface["match"]["op"], interface["match"]["right"]) == ("!=", "ctr0")
    assert verdict == {"masquerade": None}


def test_remove_takes_its_own_rules(driver: BridgeNetwork, way: str) -> None:
    subprocess.run(["nft", "add table ip ctr-stranger"], check=True)
    before = ruleset()
    driver.create_network(NETWORK)
    one = ruleset()
    driver.create_network(SECOND)
    driver.remove_network(SECOND)
    assert ruleset() == one
    driver.remove_network(NETWORK)
    driver.remove_network(NETWORK)
    assert ruleset() == before


def test_forwarding_only_for_nat(driver: BridgeNetwork) -> None:
    with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as file:
        file.write("0")
    driver.create_network(SECOND._replace(nat=False))
    assert forwarding() == "0"
    assert ruleset() == []
    driver.create_network(NETWORK)
    assert forwarding() == "1"


def test_neighbours_cannot_connect_into_the_network(
    driver: BridgeNetwork, container: Namespace
) -> None:
    """A host that forwards must not carry the world's connections to the containers."""
    driver.create_network(NETWORK)
    driver.attach(NETWORK, endpoint_of(NETWORK, 2), container.fd)
    with world() as outside, container.listen("172.30.0.2") as server:
        port = server.getsockname()[1]
        with outside.inside():
            ip("route", "add", "172.30.0.0/16", "via", "198.51.100.1")
        with pytest.raises(TimeoutError):
            outside.connect("172.30.0.2", port, patience=0.3)
        # The same way is open once the network is routed instead of hidden.
        driver.remove_network(NETWORK)
        driver.detach(NETWORK, endpoint_of(NETWORK, 2))
        routed = NETWORK._replace(nat=False)
        driver.create_network(routed)
        driver.attach(routed, endpoint_of(routed, 2), container.fd)
        outside.connect("172.30.0.2", port)


def test_containers_of_two_networks_are_apart(
    driver: BridgeNetwork, container: Namespace, host: Namespace
) -> None:
    other = Namespace()
    second = endpoint_of(SECOND, 3)._replace(address="172.29.0.3/16", gateway="172.29.0.1")
    driver.create_network(NETWORK)
    driver.create_network(SECOND)
    driver.attach(NETWORK, endpoint_of(NETWORK, 2), container.fd)
    driver.attach(SECOND, second, other.fd)
    with other.listen("172.29.0.3") as server, pytest.raises(TimeoutError):
        container.connect("172.29.0.3", server.getsockname()[1], patience=0.3)
    other.close()


def test_return_traffic_passes(driver: BridgeNetwork, container: Namespace) -> None:
    driver.create_network(NETWORK)
    driver.attach(NETWORK, endpoint_of(NETWORK, 2), container.fd)
    with world() as outside, outside.listen(WORLD) as server:
        for _ in range(2):
            container.connect(WORLD, server.getsockname()[1])


def test_without_nftables(
    driver: BridgeNetwork, host: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nat, "_library", lambda: None)
    monkeypatch.setattr(nat, "_program", lambda: None)
    with pytest.raises(UnsupportedError, match="neither libnftables") as caught:
        driver.create_network(NETWORK)
    assert caught.value.hint.startswith("install nftables, or ")
    assert "nat=false" in caught.value.hint
    assert {link["ifname"] for link in ip("link")} == host.own_links
    driver.remove_network(NETWORK)
    driver.create_network(NETWORK._replace(nat=False))
    driver.remove_network(NETWORK._replace(nat=False))
    (info,) = ctr_network_drivers()
    probe = info.probe(CONTEXT)
    assert not probe.ok
    assert "nat=false" in probe.hint
    assert info.probe(CONTEXT._replace(options=Options(nat=False))).ok


def test_refused_rules(driver: BridgeNetwork, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that refuses a rule is reported in nftables' own words, and undone."""
    monkeypatch.setattr(nat, "_table", lambda bridge: f"bridge ctr-{bridge}")
    with pytest.raises(UnsupportedError, match=r"cannot set up NAT for bridge ctr0: .+") as caught:
        driver.create_network(NETWORK)
    assert "\n" not in caught.value.message
    assert caught.value.hint.startswith("the kernel needs nf_tables with NAT")
    assert "nat=false" in caught.value.hint
    assert ruleset() == []
    driver.remove_network(NETWORK)
    (info,) = ctr_network_drivers()
    assert info.probe(CONTEXT).reason.startswith("no NAT: ")


def test_probe_makes_no_rules(way: str) -> None:
    (info,) = ctr_network_drivers()
    assert info.probe(CONTEXT).ok
    assert ruleset() == []


def test_strangers_bridge(driver: BridgeNetwork) -> None:
    """A bridge that this installation did not make is neither used nor changed nor removed."""
    ip("link", "add", "ctr0", "type", "bridge")
    before = ip("address")
    with pytest.raises(ConflictError) as caught:
        driver.create_network(NETWORK)
    assert "bridge=NAME" in caught.value.hint
    driver.remove_network(NETWORK)
    assert ip("address") == before
    assert ruleset() == []


def test_other_installations_bridge(driver: BridgeNetwork) -> None:
    driver.create_network(NETWORK)
    other = BridgeNetwork(CONTEXT._replace(root="/elsewhere"))
    with pytest.raises(ConflictError):
        other.create_network(NETWORK)
    other.remove_network(NETWORK)
    assert len(rules("postrouting")) == 1
    assert ip("link", "show", "ctr0")


def test_bridge_with_another_address(driver: BridgeNetwork) -> None:
    driver.create_network(NETWORK)
    with pytest.raises(ConflictError, match=r"has the address 172\.30\.0\.1/16"):
        driver.create_network(SECOND._replace(bridge="ctr0", nat=False))


def test_half_made_bridge_is_completed(driver: BridgeNetwork, container: Namespace) -> None:
    """What a killed create_network left is finished by the next."""
    with netlink.Netlink() as client:
        client.add_bridge("ctr0", address="02:42:ac:1e:00:01", mtu=1500, group=driver.group)
    with pytest.raises(NotFoundError):
        driver.attach(NETWORK, endpoint_of(NETWORK, 2), container.fd)
    driver.create_network(NETWORK)
    driver.attach(NETWORK, endpoint_of(NETWORK, 2), container.fd)
    (link,) = ip("address", "show", "ctr0")
    assert "UP" in link["flags"]
    assert [one["local"] for one in link["addr_info"]] == ["172.30.0.1"]


def test_bridge_keeps_its_hardware_address(driver: BridgeNetwork, container: Namespace) -> None:
    driver.create_network(NETWORK)
    driver.attach(NETWORK, endpoint_of(NETWORK, 2), container.fd)
    assert ip("link", "show", "ctr0")[0]["address"] == "02:42:ac:1e:00:01"


def test_no_ipv6_on_the_bridge(driver: BridgeNetwork) -> None:
    driver.create_network(NETWORK)
    for name, value in (("accept_ra", "0"), ("disable_ipv6", "1")):
        with open(f"/proc/sys/net/ipv6/conf/ctr0/{name}", encoding="ascii") as file:
            assert file.read().strip() == value


def test_small_mtu(driver: BridgeNetwork, container: Namespace) -> None:
    """Below IPv6's least MTU an interface has no IPv6 settings at all."""
    small = NETWORK._replace(mtu=600)
    driver.create_network(small)
    driver.attach(small, endpoint_of(small, 2), container.fd)
    with container.inside():
        assert ip("link", "show", "eth0")[0]["mtu"] == 600


@pytest.mark.parametrize("name", ["", "a" * 16, "..", "a/b", 'x"; flush ruleset; #', "a b"])
def test_hostile_names(driver: BridgeNetwork, container: Namespace, name: str) -> None:
    with pytest.raises(InvalidError):
        driver.create_network(NETWORK._replace(bridge=name))
    with pytest.raises(InvalidError):
        driver.remove_network(NETWORK._replace(bridge=name))
    driver.create_network(NETWORK)
    with pytest.raises(InvalidError):
        driver.attach(NETWORK, endpoint_of(NETWORK, 2)._replace(interface=name), container.fd)


@pytest.mark.parametrize("subnet", ["172.30.0.0", "172.30.0.1/16", "0/0; flush ruleset", "::/64"])
def test_hostile_subnets(driver: BridgeNetwork, subnet: str) -> None:
    with pytest.raises(InvalidError):
        driver.create_network(NETWORK._replace(subnet=subnet))
    assert ruleset() == []


def test_unknown_link_kind(host: Namespace) -> None:
    with netlink.Netlink() as client:
        assert client.knows_kind("bridge")
        assert client.knows_kind("veth")
        assert not client.knows_kind("ctr-no-such-kind")
    assert {link["ifname"] for link in ip("link")} == host.own_links


def test_links_are_marked_from_birth(driver: BridgeNetwork, container: Namespace) -> None:
    driver.create_network(NETWORK)
    driver.attach(NETWORK, endpoint_of(NETWORK, 2), container.fd)
    group = str(link_group(CONTEXT.root))
    assert {one["ifname"] for one in ip("link", "show", "group", group)} == {
        "ctr0",
        endpoint_of(NETWORK, 2).host_interface,
    }
