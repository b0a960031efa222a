"""Subnets, addresses and names."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr import ipam
from ctr.errors import ConflictError, InvalidError

SUBNETS = st.builds(
    lambda value, prefix: str(ipaddress.ip_network((value, prefix), strict=False)),
    st.integers(0, 2**32 - 1),
    st.integers(24, 30),
)

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
tun0\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def test_lowest_free_address() -> None:
    assert ipam.next_address("172.30.0.0/16", "172.30.0.1", []) == "172.30.0.2/16"
    used = ["172.30.0.2", "172.30.0.4/16"]
    assert ipam.next_address("172.30.0.0/16", "172.30.0.1", used) == "172.30.0.3/16"
    assert ipam.next_address("10.0.0.0/24", "10.0.0.254", []) == "10.0.0.1/24"


def test_address_passes_a_byte() -> None:
    used = [f"172.30.0.{last}" for last in range(2, 256)]
    assert ipam.next_address("172.30.0.0/16", "172.30.0.1", used) == "172.30.1.0/16"


@given(SUBNETS, st.data())
def test_addresses_until_the_subnet_is_full(subnet: str, data: st.DataObject) -> None:
    """Each is a host's address, none comes twice, and the last but none is a conflict."""
    hosts = [str(host) for host in ipaddress.ip_network(subnet).hosts()]
    gateway = data.draw(st.sampled_from(hosts))
    used: list[str] = []
    for _ in hosts[1:]:
        used.append(ipam.next_address(subnet, gateway, used))
    bare = [address.partition("/")[0] for address in used]
    assert sorted([*bare, gateway]) == sorted(hosts)
    assert {str(ipaddress.ip_interface(address).network) for address in used} == {subnet}
    with pytest.raises(ConflictError, match="full"):
        ipam.next_address(subnet, gateway, used)


@pytest.mark.parametrize("subnet", ["10.0.0.0/31", "10.0.0.1/32"])
def test_subnet_without_room(subnet: str) -> None:
    with pytest.raises(InvalidError):
        ipam.next_address(subnet, "10.0.0.1", [])


def test_first_pool_is_not_dockers() -> None:
    assert ipam.choose_subnet([]) == "172.30.0.0/16"


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        (["172.30.0.0/16"], "172.31.0.0/16"),
        (["172.30.255.255/32"], "172.31.0.0/16"),
        (["172.30.0.0/15"], "172.29.0.0/16"),
        (["172.16.0.0/12"], "192.168.240.0/20"),
        (["172.16.0.0/12", "192.168.250.0/24"], "192.168.224.0/20"),
        (["10.0.0.0/8"], "172.30.0.0/16"),
    ],
)
def test_pools_that_are_taken(taken: list[str], chosen: str) -> None:
    assert ipam.choose_subnet(taken) == chosen


def test_every_pool_is_taken() -> None:
    with pytest.raises(ConflictError) as caught:
        ipam.choose_subnet(["172.16.0.0/12", "192.168.0.0/16"])
    assert "subnet=" in caught.value.hint


@given(st.lists(SUBNETS, max_size=20))
def test_chosen_subnet_overlaps_nothing(taken: list[str]) -> None:
    chosen = ipaddress.ip_network(ipam.choose_subnet(taken))
    assert not any(chosen.overlaps(ipaddress.ip_network(other)) for other in taken)


def test_pools_in_turn() -> None:
    """31 networks can be made without a word, no two overlap, and then the pools are empty."""
    taken: list[str] = []
    for _ in range(15 + 16):
        chosen = ipaddress.ip_network(ipam.choose_subnet(taken))
        assert not any(chosen.overlaps(ipaddress.ip_network(other)) for other in taken)
        taken.append(str(chosen))
    with pytest.raises(ConflictError):
        ipam.choose_subnet(taken)


def test_first_address() -> None:
    assert ipam.first_address("172.30.0.0/16") == "172.30.0.1"


def test_routes_without_default_routes(tmp_path: object) -> None:
    path = f"{tmp_path}/route"
    with open(path, "w", encoding="ascii") as file:
        file.write(ROUTES)
    assert ipam.host_routes(path) == ["192.0.2.0/24", "172.17.0.0/16"]


def test_no_routes(tmp_path: object) -> None:
    assert ipam.host_routes(f"{tmp_path}/missing") == []


def test_mac() -> None:
    assert ipam.mac_for("172.30.0.2/16") == "02:42:ac:1e:00:02"
    assert ipam.mac_for("172.30.0.2") == "02:42:ac:1e:00:02"


def test_host_interface_name() -> None:
    assert ipam.host_interface_name("0123456789abcdef") == "ctr0123456789a"


@pytest.mark.parametrize("identity", ["", "0123", "0123456789g", "../../../../etc", "ABCDEF012345"])
def test_bad_endpoint_id(identity: str) -> None:
    with pytest.raises(InvalidError):
        ipam.host_interface_name(identity)


@given(st.integers(0, 2**32 - 1))
def test_addresses_round_trip(value: int) -> None:
    text = ipam.format_address(value)
    assert text == str(ipaddress.IPv4Address(value))
    assert ipam.parse_address(text) == value


BAD = ["", "1.2.3", "1.2.3.4.5", "256.0.0.1", "1.2.3.-4", "01.2.3.4", "1.2.3.4 ", "\u0661.2.3.4"]


@pytest.mark.parametrize("text", [*BAD, "::1"])
def test_malformed_addresses(text: str) -> None:
    with pytest.raises(InvalidError):
        ipam.parse_address(text)


@given(st.text(alphabet="0123456789./ -x", max_size=20))
def test_addresses_are_those_of_the_library(text: str) -> None:
    try:
        expected = int(ipaddress.IPv4Address(text))
    except ValueError:
        with pytest.raises(InvalidError):
            ipam.parse_address(text)
    else:
        assert ipam.parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.1/24", "x/8", "::/64"]
)
def test_malformed_subnets(text: str) -> None:
    with pytest.raises(InvalidError):
        ipam.parse_subnet(text)
