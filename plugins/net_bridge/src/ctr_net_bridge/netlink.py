"""A small rtnetlink client: the messages that bridges and veth pairs need, and their answers.

An encoder of its own, because it is on the path of every ``ctr run``: importing pyroute2
takes 115 ms, and the whole attachment of a container takes 1.  See rtnetlink(7),
linux/rtnetlink.h, linux/if_link.h; the layout is the machine's own byte order.
"""

from __future__ import annotations

import _socket as socket  # socket itself costs 4 ms to import
import errno
import os
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

# from linux/netlink.h
NETLINK_ROUTE = 0
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_ACK_TLVS = 0x200
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

# from linux/rtnetlink.h
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTA_OIF = 4
RTA_GATEWAY = 5
RT_TABLE_MAIN = 254
RTPROT_STATIC = 4
RT_SCOPE_UNIVERSE = 0
RTN_UNICAST = 1

# from linux/if_link.h, linux/if_addr.h, linux/veth.h, linux/if.h
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_GROUP = 27
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
VETH_INFO_PEER = 1
IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFF_UP = 1
IFNAMSIZ = 16

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_ERROR = struct.Struct("=i")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")

_BUFFER = 1 << 16


class Link(NamedTuple):
    """A network interface; ``kind`` is the kernel's word (bridge, veth) or empty."""

    ifindex: int
    name: str
    kind: str
    group: int
    master: int
    mtu: int
    address: str
    up: bool


class Netlink:
    """An rtnetlink socket in the network namespace that the thread was in when it was made.

    Every request waits for the kernel's answer.  A refusal is an OSError whose text carries
    the kernel's own words, where it gave any, and whose filename is the object's name.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
        self._sequence = 0
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def add_bridge(self, name: str, *, address: str, mtu: int, group: int) -> None:
        """Make a bridge, down.  Raises FileExistsError when the name is taken."""
        attributes = (
            text_attribute(IFLA_IFNAME, name)
            + attribute(IFLA_ADDRESS, hardware_address(address))
            + number_attribute(IFLA_MTU, mtu)
            + number_attribute(IFLA_GROUP, group)
            + nested(IFLA_LINKINFO, text_attribute(IFLA_INFO_KIND, "bridge"))
        )
        self._request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, link_header() + attributes, name)

    def add_veth(
        self, name: str, *, master: int, mtu: int, group: int, peer: str, address: str, netns: int
    ) -> None:
        """Make a veth pair in one act: ``name`` here, up, in the bridge with index ``master``;
        ``peer`` with the hardware address ``address``, down, in the namespace behind ``netns``.

        Raises FileExistsError when either name is taken.
        """
        inside = (
            link_header()
            + text_attribute(IFLA_IFNAME, peer)
            + attribute(IFLA_ADDRESS, hardware_address(address))
            + number_attribute(IFLA_MTU, mtu)
            + number_attribute(IFLA_NET_NS_FD, netns)
        )
        attributes = (
            text_attribute(IFLA_IFNAME, name)
            + number_attribute(IFLA_MTU, mtu)
            + number_attribute(IFLA_MASTER, master)
            + number_attribute(IFLA_GROUP, group)
            + nested(
                IFLA_LINKINFO,
                text_attribute(IFLA_INFO_KIND, "veth")
                + nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, inside)),
            )
        )
        header = link_header(flags=IFF_UP, change=IFF_UP)
        self._request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, header + attributes, name)

    def set_up(self, index: int) -> None:
        """Set the interface up."""
        header = link_header(index=index, flags=IFF_UP, change=IFF_UP)
        self._request(RTM_SETLINK, 0, header, f"interface {index}")

    def add_address(self, index: int, address: str) -> None:
        """Give the interface an IPv4 address, as in ``172.30.0.2/16``.

        Raises FileExistsError when it has it already.
        """
        host, _, length = address.partition("/")
        packed, prefix = socket.inet_aton(host), int(length)
        mask = (1 << (32 - prefix)) - 1
        broadcast = (int.from_bytes(packed, "big") | mask).to_bytes(4, "big")
        header = _IFADDR.pack(socket.AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, index)
        attributes = (
            attribute(IFA_LOCAL, packed)
            + attribute(IFA_ADDRESS, packed)
            + attribute(IFA_BROADCAST, broadcast)
        )
        self._request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, header + attributes, address)

    def add_default_route(self, index: int, gateway: str) -> None:
        """Send everything without a better route to ``gateway`` through the interface."""
        header = _ROUTE.pack(
            socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0
        )
        attributes = attribute(RTA_GATEWAY, socket.inet_aton(gateway)) + number_attribute(
            RTA_OIF, index
        )
        self._request(
            RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, header + attributes, f"default via {gateway}"
        )

    def delete_link(self, index: int) -> None:
        """Remove an interface; one already gone is a success."""
        try:
            self._request(RTM_DELLINK, 0, link_header(index=index), f"interface {index}")
        except OSError as error:
            if not is_gone(error):
                raise

    def link(self, name: str) -> Link | None:
        """Look an interface up by name; None when there is none."""
        try:
            payload = link_header() + text_attribute(IFLA_IFNAME, name)
            (message,) = self._request(RTM_GETLINK, 0, payload, name)
        except OSError as error:
            if not is_gone(error):
                raise
            return None
        return parse_link(message)

    def links(self) -> list[Link]:
        """Return every interface of the namespace."""
        answers = self._request(RTM_GETLINK, NLM_F_DUMP, link_header(), "the links")
        return [parse_link(message) for message in answers]

    def addresses(self, index: int) -> list[str]:
        """Return the IPv4 addresses of an interface, each with its prefix length."""
        header = _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0)
        found = []
        for message in self._request(RTM_GETADDR, NLM_F_DUMP, header, "the addresses"):
            _, prefix, _, _, owner = _IFADDR.unpack_from(message)
            local = parse_attributes(message[_IFADDR.size :]).get(IFA_LOCAL, b"")
            if owner == index and len(local) == 4:
                found.append(f"{socket.inet_ntoa(local)}/{prefix}")
        return found

    def knows_kind(self, kind: str) -> bool:
        """Tell whether the kernel can make links of ``kind``, without making one.

        The request is one that no kind accepts, a hardware address of five bytes; a kernel
        without the kind (after it tried to load its module) never gets so far as to look.
        Raises PermissionError without CAP_NET_ADMIN.
        """
        attributes = (
            text_attribute(IFLA_IFNAME, "ctr-probe")
            + attribute(IFLA_ADDRESS, bytes(5))
            + nested(IFLA_LINKINFO, text_attribute(IFLA_INFO_KIND, kind))
        )
        try:
            self._request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, link_header() + attributes, kind)
        except PermissionError:
            raise
        except OSError as error:
            return error.errno != errno.EOPNOTSUPP
        return True

    def _request(self, kind: int, flags: int, payload: bytes, name: str) -> list[bytes]:
        """Send one message; return the payloads of the answers, or raise the kernel's error."""
        self._sequence += 1
        dump = flags & NLM_F_DUMP == NLM_F_DUMP
        flags |= NLM_F_REQUEST | (0 if dump else NLM_F_ACK)
        self._socket.send(encode(kind, flags, self._sequence, payload))
        answers: list[bytes] = []
        while True:
            for answer, answer_flags, sequence, body in split(self._socket.recv(_BUFFER)):
                if sequence != self._sequence:
                    continue
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    raise_error(answer, answer_flags, body, name)
                    return answers
                answers.append(body)


def encode(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return one netlink message."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence number and payload of each message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + size]
        offset += _aligned(size)


def raise_error(kind: int, flags: int, body: bytes, name: str) -> None:
    """Raise the OSError that an NLMSG_ERROR or NLMSG_DONE carries; none for an acknowledgement.

    The kernel's text (NETLINK_EXT_ACK) follows the error's number and, in an NLMSG_ERROR,
    the header of our request, without its payload (NETLINK_CAP_ACK).
    """
    (number,) = _ERROR.unpack_from(body) if len(body) >= _ERROR.size else (0,)
    if number >= 0:
        return
    text = ""
    if flags & NLM_F_ACK_TLVS:
        offset = _ERROR.size + (_HEADER.size if kind == NLMSG_ERROR else 0)
        message = parse_attributes(body[offset:]).get(NLMSGERR_ATTR_MSG, b"")
        text = message.rstrip(b"\0").decode(errors="replace")
    cause = os.strerror(-number)
    raise OSError(-number, f"{cause} ({text})" if text else cause, name)


def is_gone(error: OSError) -> bool:
    """Tell whether the error says that the interface does not exist."""
    return error.errno == errno.ENODEV


def link_header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """Return a struct ifinfomsg."""
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(_aligned(size) - size)


def number_attribute(kind: int, value: int) -> bytes:
    """Return an attribute of 32 bits."""
    return attribute(kind, _U32.pack(value))


def text_attribute(kind: int, value: str) -> bytes:
    """Return an attribute that is a text with a NUL at its end."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, attributes: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | NLA_F_NESTED, attributes)


def hardware_address(text: str) -> bytes:
    """Return the six bytes of ``02:42:ac:1e:00:02``."""
    return bytes.fromhex(text.replace(":", ""))


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes by type; of a repeated one the last."""
    found = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < _ATTRIBUTE.size:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + size]
        offset += _aligned(size)
    return found


def parse_link(message: bytes) -> Link:
    """Return the link that the payload of an RTM_NEWLINK describes."""
    _, _, index, flags, _ = _IFINFO.unpack_from(message)
    found = parse_attributes(message[_IFINFO.size :])
    info = parse_attributes(found.get(IFLA_LINKINFO, b""))
    return Link(
        ifindex=index,
        name=_text(found.get(IFLA_IFNAME, b"")),
        kind=_text(info.get(IFLA_INFO_KIND, b"")),
        group=_number(found.get(IFLA_GROUP)),
        master=_number(found.get(IFLA_MASTER)),
        mtu=_number(found.get(IFLA_MTU)),
        address=found.get(IFLA_ADDRESS, b"").hex(":"),
        up=bool(flags & IFF_UP),
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(_U32.unpack(value)[0])


def _aligned(size: int) -> int:
    return (size + 3) & ~3
