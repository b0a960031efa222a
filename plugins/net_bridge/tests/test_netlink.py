"""The encoder against pyroute2's decoder, and the parser against the kernel's answers."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ctr_net_bridge import netlink
from ctr_net_bridge.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Callable


class Kernel:
    """A socket that keeps what is sent and answers with what the test gives, then yes."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.answers: list[bytes] = []
        self.closed = False

    def __call__(self, *_: int) -> Kernel:
        return self

    def setsockopt(self, *_: int) -> None: ...

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, size: int) -> bytes:
        if self.answers:
            return self.answers.pop(0)
        return acknowledgement(len(self.sent), 0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr("ctr_net_bridge.netlink.socket.socket", kernel)
    return kernel


def acknowledgement(sequence: int, number: int, text: str = "") -> bytes:
    """An NLMSG_ERROR as the kernel packs it with CAP_ACK and EXT_ACK."""
    body = struct.pack("=i", number) + bytes(16)
    flags = 0x100
    if text:
        body += netlink.text_attribute(netlink.NLMSGERR_ATTR_MSG, text)
        flags |= netlink.NLM_F_ACK_TLVS
    return netlink.encode(netlink.NLMSG_ERROR, flags, sequence, body)


def decoded(kernel: Kernel, kind: Callable[[bytes], Any]) -> Any:
    """The one message that was sent, by pyroute2."""
    (data,) = kernel.sent
    message = kind(data)
    message.decode()
    assert message["header"]["length"] == len(data)
    return message


def test_bridge(kernel: Kernel) -> None:
    with Netlink() as client:
        client.add_bridge("ctr0", address="02:42:ac:1e:00:01", mtu=1400, group=77)
    message = decoded(kernel, ifinfmsg)
    assert message["header"]["type"] == 16
    assert message["header"]["flags"] == 0x1 | 0x4 | 0x200 | 0x400
    assert message.get_attr("IFLA_IFNAME") == "ctr0"
    assert message.get_attr("IFLA_ADDRESS") == "02:42:ac:1e:00:01"
    assert message.get_attr("IFLA_MTU") == 1400
    assert message.get_attr("IFLA_GROUP") == 77
    assert message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"
    assert message["flags"] == 0
    assert kernel.closed


def test_veth(kernel: Kernel) -> None:
    with Netlink() as client:
        client.add_veth(
            "ctr0123",
            master=7,
            mtu=1400,
            group=77,
            peer="eth0",
            address="02:42:ac:1e:00:02",
            netns=9,
        )
    message = decoded(kernel, ifinfmsg)
    assert message.get_attr("IFLA_IFNAME") == "ctr0123"
    assert message.get_attr("IFLA_MASTER") == 7
    assert message.get_attr("IFLA_GROUP") == 77
    assert (message["flags"], message["change"]) == (1, 1)
    assert message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"
    peer = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == "02:42:ac:1e:00:02"
    assert peer.get_attr("IFLA_MTU") == 1400
    assert peer.get_attr("IFLA_NET_NS_FD") == 9
    assert peer["flags"] == 0


def test_address(kernel: Kernel) -> None:
    with Netlink() as client:
        client.add_address(5, "172.30.0.2/20")
    message = decoded(kernel, ifaddrmsg)
    assert message["header"]["type"] == 20
    assert (message["family"], message["prefixlen"], message["index"]) == (socket.AF_INET, 20, 5)
    assert message.get_attr("IFA_LOCAL") == "172.30.0.2"
    assert message.get_attr("IFA_ADDRESS") == "172.30.0.2"
    assert message.get_attr("IFA_BROADCAST") == "172.30.15.255"


def test_default_route(kernel: Kernel) -> None:
    with Netlink() as client:
        client.add_default_route(5, "172.30.0.1")
    message = decoded(kernel, rtmsg)
    assert message["header"]["type"] == 24
    assert (message["dst_len"], message["table"], message["type"]) == (0, 254, 1)
    assert message.get_attr("RTA_GATEWAY") == "172.30.0.1"
    assert message.get_attr("RTA_OIF") == 5
    assert message.get_attr("RTA_DST") is None


def test_up_and_delete(kernel: Kernel) -> None:
    with Netlink() as client:
        client.set_up(5)
    message = decoded(kernel, ifinfmsg)
    assert (message["header"]["type"], message["index"]) == (19, 5)
    assert (message["flags"], message["change"]) == (1, 1)
    kernel.sent.clear()
    with Netlink() as client:
        client.delete_link(5)
    message = decoded(kernel, ifinfmsg)
    assert (message["header"]["type"], message["index"]) == (17, 5)


def test_error_carries_the_kernels_words(kernel: Kernel) -> None:
    kernel.answers = [acknowledgement(1, -errno.EINVAL, "Invalid MTU")]
    with Netlink() as client, pytest.raises(OSError, match="Invalid argument") as caught:
        client.add_bridge("ctr0", address="02:42:ac:1e:00:01", mtu=1, group=0)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.strerror == "Invalid argument (Invalid MTU)"
    assert caught.value.filename == "ctr0"


def test_missing_links(kernel: Kernel) -> None:
    kernel.answers = [acknowledgement(1, -errno.ENODEV), acknowledgement(2, -errno.ENODEV)]
    with Netlink() as client:
        assert client.link("ctr0") is None
        client.delete_link(5)


def test_answers_to_others_are_ignored(kernel: Kernel) -> None:
    kernel.answers = [acknowledgement(99, -errno.EPERM)]
    with Netlink() as client:
        client.set_up(5)


def test_dump_in_several_datagrams(kernel: Kernel) -> None:
    def link(index: int, name: str) -> bytes:
        info = netlink.nested(18, netlink.text_attribute(1, "veth"))
        attributes = (
            netlink.text_attribute(3, name)
            + netlink.number_attribute(27, 77)
            + netlink.number_attribute(4, 1400)
            + netlink.attribute(1, bytes.fromhex("0242ac1e0002"))
        )
        payload = netlink.link_header(index, flags=1) + attributes + info
        return netlink.encode(16, 2, 1, payload)

    done = netlink.encode(netlink.NLMSG_DONE, 2, 1, struct.pack("=i", 0))
    kernel.answers = [link(1, "a") + link(2, "bc"), link(3, "def"), done]
    with Netlink() as client:
        links = client.links()
    assert [(one.ifindex, one.name) for one in links] == [(1, "a"), (2, "bc"), (3, "def")]
    assert {one[2:] for one in links} == {("veth", 77, 0, 1400, "02:42:ac:1e:00:02", True)}


@given(st.dictionaries(st.integers(0, netlink.NLA_TYPE_MASK), st.binary(max_size=40)))
def test_attributes_round_trip(values: dict[int, bytes]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in values.items())
    assert len(data) % 4 == 0
    assert netlink.parse_attributes(data) == values


@given(st.binary(max_size=200))
def test_damaged_attributes_end(data: bytes) -> None:
    for value in netlink.parse_attributes(data).values():
        assert len(value) <= len(data)
