"""The laws of a network driver, as one test class.

A driver's own test is::

    class TestBridge(NetworkConformance):
        @pytest.fixture
        def info(self) -> DriverInfo[NetworkDriver]:
            (info,) = ctr_network_drivers()
            return info

Every test runs in a network namespace of its own that plays the host; containers are
further namespaces without a process.  It needs root and iproute2.  Laws that not every
driver can keep are gated on the capabilities of its DriverInfo:

``host-link``  an endpoint has a link on the host, named ``host_interface``
``gateway``    the host itself answers at the network's gateway address
``nat``        containers reach the world outside by the host's addresses
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from ctr.drivers import DriverContext, DriverInfo, NetworkDriver
from ctr.errors import CtrError, NotFoundError
from ctr.ipam import host_interface_name, mac_for
from ctr.kernel import CLONE_NEWNET, CLONE_NEWUSER, setns, unshare
from ctr.models import Endpoint, Network
from ctr.testing.pytest_plugin import Undeclared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seconds that a connection may take; none should take one.
PATIENCE = 5.0

#: The world outside, from TEST-NET-2 (RFC 5737): the host's address there and another's.
HOST_OUTSIDE = "198.51.100.1"
WORLD = "198.51.100.2"


class Namespace:
    """A network namespace, alive as long as its descriptor ``fd`` is open."""

    def __init__(self) -> None:
        with _back_home():
            unshare(CLONE_NEWNET)
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            ip("link", "set", "lo", "up")
            #: The links that the kernel makes by itself: lo, and what tunnel modules add.
            self.own_links = _links()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Run the body in the namespace, on this thread.  Sockets made there stay there."""
        with _back_home():
            setns(self.fd, CLONE_NEWNET)
            yield

    def connect(self, address: str, port: int, patience: float = PATIENCE) -> None:
        """Open a TCP connection from inside and close it.  Raises OSError."""
        with self.inside():
            client = socket.socket()
        with client:
            client.settimeout(patience)
            client.connect((address, port))

    def listen(self, address: str) -> socket.socket:
        """Return a TCP listener inside, on a free port."""
        with self.inside():
            return listen(address)

    def close(self) -> None:
        """Give the namespace up; the kernel takes it down when nothing else holds it."""
        os.close(self.fd)


class NetworkConformance:
    """What every network driver promises."""

    pytestmark = pytest.mark.root

    @pytest.fixture
    def info(self) -> DriverInfo[NetworkDriver]:
        """The driver under test.  To be overridden."""
        raise NotImplementedError("override the fixture `info`")

    @pytest.fixture
    def options(self) -> object:
        """The driver's options; override where the defaults do not fit."""
        return None

    @pytest.fixture
    def network(self, info: DriverInfo[NetworkDriver]) -> Network:
        """A network without NAT; the law of NAT makes its own."""
        return Network(
            id="4e" * 32,
            name="kit",
            driver=info.name,
            subnet="172.30.0.0/16",
            gateway="172.30.0.1",
            bridge="kit0",
            mtu=1400,
            nat=False,
        )

    @pytest.fixture(autouse=True)
    def host(self) -> Iterator[Namespace]:
        """The namespace that plays the host; the test runs inside."""
        host = Namespace()
        with host.inside():
            yield host
        host.close()

    @pytest.fixture
    def driver(
        self, info: DriverInfo[NetworkDriver], options: object, host: Namespace, tmp_path: Path
    ) -> NetworkDriver:
        """The driver, opened."""
        return info.factory(DriverContext(str(tmp_path / "root"), str(tmp_path / "run"), options))

    @pytest.fixture
    def container(self, host: Namespace) -> Iterator[Namespace]:
        """A namespace that plays a container."""
        container = Namespace()
        yield container
        with suppress(OSError):
            container.close()

    @pytest.fixture
    def other(self, host: Namespace) -> Iterator[Namespace]:
        """A second container."""
        other = Namespace()
        yield other
        other.close()

    def test_attach_makes_an_interface(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """Up, with address, hardware address, MTU and default route; nothing else inside."""
        endpoint = endpoint_of(network, 2)
        driver.create_network(network)
        driver.attach(network, endpoint, container.fd)
        with container.inside():
            links = {link["ifname"]: link for link in ip("address")}
            routes = ip("route", "show", "default")
        assert set(links) == {"eth0", *container.own_links}
        link = links["eth0"]
        assert "UP" in link["flags"]
        assert link["address"] == endpoint.mac
        assert link["mtu"] == network.mtu
        addresses = [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]]
        assert addresses == [endpoint.address]
        assert [(one["gateway"], one["dev"]) for one in routes] == [(network.gateway, "eth0")]

    def test_attach_stays_in_its_namespace(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """The calling thread ends where it began, with the descriptors that it had."""
        driver.create_network(network)
        before = os.readlink("/proc/thread-self/ns/net"), len(os.listdir("/proc/self/fd"))
        driver.attach(network, endpoint_of(network, 2), container.fd)
        driver.detach(network, endpoint_of(network, 2))
        after = os.readlink("/proc/thread-self/ns/net"), len(os.listdir("/proc/self/fd"))
        assert after == before

    def test_no_router_advertisements(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """An IPv4 network's interface listens to no IPv6 router (CVE-2020-13401)."""
        driver.create_network(network)
        driver.attach(network, endpoint_of(network, 2), container.fd)
        folder = "/proc/sys/net/ipv6/conf/eth0"
        with container.inside():
            if os.path.isdir(folder):
                with open(f"{folder}/accept_ra", encoding="ascii") as file:
                    assert file.read() == "0\n"
                assert not ip("-6", "route", "show", "default")

    def test_gateway_answers(
        self,
        info: DriverInfo[NetworkDriver],
        driver: NetworkDriver,
        network: Network,
        container: Namespace,
    ) -> None:
        """A container reaches the host at the gateway's address."""
        _needs(info, "gateway")
        driver.create_network(network)
        driver.attach(network, endpoint_of(network, 2), container.fd)
        with listen(network.gateway) as server:
            container.connect(network.gateway, server.getsockname()[1])
            assert _caller(server) == "172.30.0.2"

    def test_containers_reach_each_other(
        self,
        driver: NetworkDriver,
        network: Network,
        container: Namespace,
        other: Namespace,
    ) -> None:
        """Two containers of a network talk by their own addresses."""
        driver.create_network(network)
        driver.attach(network, endpoint_of(network, 2), container.fd)
        driver.attach(network, endpoint_of(network, 3), other.fd)
        with other.listen("172.30.0.3") as server:
            container.connect("172.30.0.3", server.getsockname()[1])
            assert _caller(server) == "172.30.0.2"

    def test_nat(
        self,
        info: DriverInfo[NetworkDriver],
        driver: NetworkDriver,
        network: Network,
        container: Namespace,
    ) -> None:
        """The world outside is reached, and sees the host's address."""
        _needs(info, "nat")
        network = network._replace(nat=True)
        driver.create_network(network)
        driver.attach(network, endpoint_of(network, 2), container.fd)
        with world() as outside, outside.listen(WORLD) as server:
            container.connect(WORLD, server.getsockname()[1])
            assert _caller(server) == HOST_OUTSIDE
        driver.detach(network, endpoint_of(network, 2))
        driver.remove_network(network)
        driver.remove_network(network)

    def test_attach_in_user_namespace(self, driver: NetworkDriver, network: Network) -> None:
        """A namespace that belongs to a user namespace is joined like any other."""
        driver.create_network(network)
        with _in_user_namespace() as netns:
            driver.attach(network, endpoint_of(network, 2), netns)
            with _back_home():
                setns(netns, CLONE_NEWNET)
                assert "UP" in ip("link", "show", "eth0")[0]["flags"]
            driver.detach(network, endpoint_of(network, 2))

    def test_detach_takes_the_interface(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """Detach undoes attach, can be repeated, and leaves the network to others."""
        before = _links()
        driver.create_network(network)
        alone = _links()
        driver.attach(network, endpoint_of(network, 2), container.fd)
        driver.detach(network, endpoint_of(network, 2))
        driver.detach(network, endpoint_of(network, 2))
        with container.inside():
            assert _links() == container.own_links
        assert _links() == alone
        driver.attach(network, endpoint_of(network, 2), container.fd)
        driver.detach(network, endpoint_of(network, 2))
        driver.remove_network(network)
        assert _links() == before

    def test_detach_without_namespace(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """Detach works after the container's namespace is gone, at whatever point it is."""
        driver.create_network(network)
        alone = _links()
        driver.attach(network, endpoint_of(network, 2), container.fd)
        container.close()
        driver.detach(network, endpoint_of(network, 2))
        assert _links() == alone

    def test_detach_without_network(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """Detach works when the network was never made, and when it was removed before."""
        before = _links()
        driver.detach(network, endpoint_of(network, 2))
        driver.create_network(network)
        driver.attach(network, endpoint_of(network, 2), container.fd)
        driver.remove_network(network)
        driver.detach(network, endpoint_of(network, 2))
        assert _links() == before

    def test_attach_to_taken_name_inside(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """An interface of that name inside: attach fails and leaves nothing on the host."""
        driver.create_network(network)
        alone = _links()
        with container.inside():
            _stranger("eth0")
            inside = _links()
        with pytest.raises((CtrError, OSError)):
            driver.attach(network, endpoint_of(network, 2), container.fd)
        assert _links() == alone
        with container.inside():
            assert _links() == inside

    def test_attach_to_taken_name_outside(
        self,
        info: DriverInfo[NetworkDriver],
        driver: NetworkDriver,
        network: Network,
        container: Namespace,
    ) -> None:
        """A stranger's link with the endpoint's name survives attach, detach and gc."""
        _needs(info, "host-link")
        driver.create_network(network)
        endpoint = endpoint_of(network, 2)
        _stranger(endpoint.host_interface)
        before = _links()
        with pytest.raises((CtrError, OSError)):
            driver.attach(network, endpoint, container.fd)
        driver.detach(network, endpoint)
        assert not driver.gc(frozenset())
        assert _links() == before
        with container.inside():
            assert _links() == container.own_links

    def test_failing_attach_leaves_nothing(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """A gateway out of reach makes the last step of attach fail: all of it is undone."""
        driver.create_network(network)
        alone = _links()
        endpoint = endpoint_of(network, 2)._replace(gateway="203.0.113.1")
        with pytest.raises((CtrError, OSError)):
            driver.attach(network, endpoint, container.fd)
        assert _links() == alone
        with container.inside():
            assert _links() == container.own_links

    def test_attach_without_network(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """After a reboot the network is missing: attach says so, create and attach succeed."""
        with pytest.raises(NotFoundError):
            driver.attach(network, endpoint_of(network, 2), container.fd)
        driver.create_network(network)
        driver.attach(network, endpoint_of(network, 2), container.fd)

    def test_networks_are_made_and_removed_repeatedly(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """Making one that stands changes nothing; removing one that is gone succeeds."""
        before = _links()
        driver.remove_network(network)
        driver.create_network(network)
        alone = _links()
        driver.attach(network, endpoint_of(network, 2), container.fd)
        attached = _links()
        driver.create_network(network)
        assert _links() == attached
        driver.detach(network, endpoint_of(network, 2))
        assert _links() == alone
        driver.remove_network(network)
        driver.remove_network(network)
        assert _links() == before

    def test_networks_leave_each_other_alone(
        self, driver: NetworkDriver, network: Network, container: Namespace, other: Namespace
    ) -> None:
        """Two networks at a time; removing one keeps the other at work."""
        second = network._replace(
            id="5e" * 32, name="second", subnet="172.29.0.0/16", gateway="172.29.0.1", bridge="kit1"
        )
        endpoint = endpoint_of(second, 4)._replace(address="172.29.0.2/16", gateway="172.29.0.1")
        driver.create_network(network)
        driver.create_network(second)
        driver.attach(second, endpoint, container.fd)
        driver.attach(
            second,
            endpoint_of(second, 5)._replace(address="172.29.0.3/16", gateway="172.29.0.1"),
            other.fd,
        )
        driver.remove_network(network)
        with other.listen("172.29.0.3") as server:
            container.connect("172.29.0.3", server.getsockname()[1])

    def test_walk_and_gc(
        self,
        info: DriverInfo[NetworkDriver],
        driver: NetworkDriver,
        network: Network,
        container: Namespace,
        other: Namespace,
        tmp_path: Path,
    ) -> None:
        """Walk tells the endpoints' links, gc takes those that are not valid, and only ours."""
        _needs(info, "host-link")
        driver.create_network(network)
        assert not list(driver.walk())
        _stranger("ctr0badc0ffee00")
        first, second = endpoint_of(network, 2), endpoint_of(network, 3)
        driver.attach(network, first, container.fd)
        driver.attach(network, second, other.fd)
        assert set(driver.walk()) == {first.host_interface, second.host_interface}
        assert driver.gc(frozenset({first.host_interface})) == [second.host_interface]
        assert list(driver.walk()) == [first.host_interface]
        elsewhere = info.factory(DriverContext(str(tmp_path / "elsewhere"), str(tmp_path / "r")))
        assert not elsewhere.gc(frozenset())
        assert list(driver.walk()) == [first.host_interface]
        assert driver.gc(frozenset()) == [first.host_interface]
        assert not driver.gc(frozenset())
        assert "ctr0badc0ffee00" in _links()

    def test_killed_attach_is_undone(
        self, driver: NetworkDriver, network: Network, container: Namespace
    ) -> None:
        """SIGKILL at any moment of attach, then detach: nothing is left, attach works again."""
        driver.create_network(network)
        alone = _links()
        endpoint = endpoint_of(network, 2)
        for step in range(16):
            _killed(lambda: driver.attach(network, endpoint, container.fd), step * 0.0002)
            driver.detach(network, endpoint)
            assert _links() == alone
            with container.inside():
                assert _links() == container.own_links
        driver.attach(network, endpoint, container.fd)

    def test_describe_is_pure(self, driver: NetworkDriver, network: Network) -> None:
        """Describe names what would be made, a line each, and makes nothing."""
        before = _links()
        lines = driver.describe(network, endpoint_of(network, 2))
        assert any("172.30.0.2/16" in line for line in lines)
        assert not any("\n" in line for line in lines)
        assert _links() == before

    def test_probe_is_quiet(
        self, info: DriverInfo[NetworkDriver], capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The driver under test works here; asking makes nothing and prints nothing."""
        before = _links()
        answer = info.probe(DriverContext("/nonexistent/root", "/nonexistent/run"))
        assert answer.ok, answer.reason
        assert _links() == before
        assert capfd.readouterr() == ("", "")


def endpoint_of(network: Network, number: int) -> Endpoint:
    """Return the endpoint whose address ends in ``number``."""
    address = f"172.30.0.{number}/16"
    identity = f"{number:02x}" * 32
    return Endpoint(
        id=identity,
        container=f"{number:02x}" * 32,
        network=network.id,
        address=address,
        gateway=network.gateway,
        mac=mac_for(address),
        host_interface=host_interface_name(identity),
    )


def ip(*arguments: str) -> Any:
    """Run ip(8) in the thread's network namespace; return what it printed as JSON."""
    done = subprocess.run(["ip", "-json", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    # With a filter that no object passes, ip prints empty objects.
    return [one for one in json.loads(done.stdout or "[]") if one]


def listen(address: str) -> socket.socket:
    """Return a TCP listener on a free port, in the thread's network namespace."""
    server = socket.create_server((address, 0))
    server.settimeout(PATIENCE)
    return server


@contextmanager
def world() -> Iterator[Namespace]:
    """A namespace outside, joined to the thread's by a link of HOST_OUTSIDE and WORLD."""
    outside = Namespace()
    peer = f"/proc/{os.getpid()}/fd/{outside.fd}"
    ip("link", "add", "outside0", "type", "veth", "peer", "name", "eth0", "netns", peer)
    ip("address", "add", f"{HOST_OUTSIDE}/24", "dev", "outside0")
    ip("link", "set", "outside0", "up")
    with outside.inside():
        ip("address", "add", f"{WORLD}/24", "dev", "eth0")
        ip("link", "set", "eth0", "up")
    try:
        yield outside
    finally:
        ip("link", "delete", "outside0")
        outside.close()


@contextmanager
def _back_home() -> Iterator[None]:
    """Bring the thread back into its network namespace afterwards."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        setns(home, CLONE_NEWNET)
        os.close(home)


@contextmanager
def _in_user_namespace() -> Iterator[int]:
    """A descriptor of a network namespace that belongs to a user namespace of its own."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            unshare(CLONE_NEWUSER | CLONE_NEWNET)
            os.write(told, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"."
        netns = os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield netns
        finally:
            os.close(netns)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _killed(act: Any, delay: float) -> None:
    """Run ``act`` in a child and kill it ``delay`` seconds after it began."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(told, b".")
            act()
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _caller(server: socket.socket) -> str:
    """Accept one connection and return where it comes from."""
    connection, (address, _) = server.accept()
    connection.close()
    return str(address)


def _links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def _stranger(name: str) -> None:
    """Make a link that belongs to nobody."""
    ip("link", "add", name, "type", "veth", "peer", "name", f"s-{name}"[:15])


def _needs(info: DriverInfo[NetworkDriver], capability: str) -> None:
    if capability not in info.capabilities:
        raise Undeclared(f"driver {info.name} does not declare {capability}")
