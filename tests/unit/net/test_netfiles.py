"""The texts of hosts and resolv.conf."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr import netfiles
from ctr.errors import InvalidError

# What `docker run --hostname web --add-host db:192.0.2.7 alpine cat /etc/hosts` prints (28).
DOCKER = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
192.0.2.7\tdb
172.17.0.2\tweb
"""

HOST = """\
# written by hand
nameserver 192.0.2.53
nameserver 127.0.0.1
nameserver ::1
nameserver fe80::1%eth0
search lan example.org
options edns0
options trust-ad
"""


def resolve(
    text: str,
    servers: tuple[str, ...] = (),
    searches: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
    *,
    host: bool = False,
) -> list[str]:
    text = netfiles.resolv_conf(text, servers, searches, options, host_network=host)
    return text.splitlines()


def test_hosts_as_docker() -> None:
    assert netfiles.hosts("web", "", "172.17.0.2/16", [("db", "192.0.2.7")]) == DOCKER


def test_hosts_with_domain() -> None:
    text = netfiles.hosts("web", "example.org", "172.30.0.2", [])
    assert text.splitlines()[-1] == "172.30.0.2\tweb.example.org web"


def test_hosts_without_network() -> None:
    assert "web" not in netfiles.hosts("web", "", "", [])


@pytest.mark.parametrize("text", ["127.0.0.1 localhost\n", "127.0.0.1 localhost", ""])
def test_hosts_of_the_host(text: str) -> None:
    result = netfiles.hosts("web", "", "", [("db", "2001:db8::7")], host_text=text)
    assert result.splitlines() == [*text.splitlines(), "2001:db8::7\tdb"]


def test_private_network_takes_what_it_can_reach() -> None:
    assert resolve(HOST) == [
        "nameserver 192.0.2.53",
        "search lan example.org",
        "options edns0 trust-ad",
    ]


def test_fallback() -> None:
    assert resolve("nameserver 127.0.0.1\n") == ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]
    assert resolve("") == ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]
    assert resolve("nameserver not-an-address\n")[0] == "nameserver 8.8.8.8"


def test_host_network_keeps_the_hosts_file() -> None:
    assert netfiles.resolv_conf(HOST, (), (), (), host_network=True) == HOST


def test_host_network_with_a_wish() -> None:
    lines = resolve(HOST, searches=("corp",), host=True)
    assert lines[:4] == [line for line in HOST.splitlines() if line.startswith("nameserver")]
    assert lines[4:] == ["search corp", "options edns0 trust-ad"]


@pytest.mark.parametrize("host", [False, True])
def test_wishes_replace(host: bool) -> None:
    lines = resolve(HOST, ("127.0.0.1", "2001:db8::53"), ("a", "b.c"), ("ndots:2",), host=host)
    assert lines == [
        "nameserver 127.0.0.1",
        "nameserver 2001:db8::53",
        "search a b.c",
        "options ndots:2",
    ]


def test_no_search() -> None:
    assert not [line for line in resolve(HOST, searches=(".",)) if line.startswith("search")]


def test_last_search_list_counts() -> None:
    assert "search c d" in resolve("search a b\ndomain x\nsearch c d\n; search e\n#search f\n")
    assert "search x" in resolve("search a b\ndomain x\n")


@pytest.mark.parametrize(
    "server", ["", "example.org", "1.2.3", "1.2.3.4\nnameserver 6.6.6.6", "1\0"]
)
def test_bad_servers(server: str) -> None:
    with pytest.raises(InvalidError):
        resolve("", (server,))


@pytest.mark.parametrize("word", ["", "a b", "a\nnameserver 6.6.6.6", "a\0", " a"])
def test_bad_words(word: str) -> None:
    with pytest.raises(InvalidError):
        resolve("", searches=(word,))
    with pytest.raises(InvalidError):
        resolve("", options=(word,))


@given(st.text(max_size=200))
def test_any_host_file_gives_servers(text: str) -> None:
    lines = resolve(text)
    assert lines[0].startswith("nameserver ")
    assert all(line.split()[0] in ("nameserver", "search", "options") for line in lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:192.0.2.7", ("db", "192.0.2.7")),
        ("db=192.0.2.7", ("db", "192.0.2.7")),
        ("db.example-1.org:192.0.2.7", ("db.example-1.org", "192.0.2.7")),
        ("db:2001:db8::7", ("db", "2001:db8::7")),
        ("db=2001:db8::7", ("db", "2001:db8::7")),
        ("db:[2001:db8::7]", ("db", "2001:db8::7")),
        ("gw:host-gateway", ("gw", "172.30.0.1")),
    ],
)
def test_add_host(text: str, expected: tuple[str, str]) -> None:
    assert netfiles.parse_add_host(text, "172.30.0.1") == expected


@pytest.mark.parametrize(
    "text",
    ["", "db", "db:", ":1.2.3.4", "db:1.2.3", "a b:1.2.3.4", "a\n:1.2.3.4", "-:1.2.3.4", "db:[::1"],
)
def test_bad_add_host(text: str) -> None:
    with pytest.raises(InvalidError):
        netfiles.parse_add_host(text, "172.30.0.1")


def test_host_gateway_without_gateway() -> None:
    with pytest.raises(InvalidError, match="gateway"):
        netfiles.parse_add_host("gw:host-gateway")


@pytest.fixture
def machine(tmp_path: object) -> dict[str, str]:
    """A host that asks systemd-resolved."""
    paths = {"path": f"{tmp_path}/resolv.conf", "resolved": f"{tmp_path}/resolved.conf"}
    with open(paths["path"], "w", encoding="ascii") as file:
        file.write("nameserver 127.0.0.53\noptions edns0\n")
    with open(paths["resolved"], "w", encoding="ascii") as file:
        file.write("nameserver 192.0.2.53\n")
    return paths


def test_servers_behind_the_stub(machine: dict[str, str]) -> None:
    text = netfiles.host_resolv_conf(host_network=False, **machine)
    assert resolve(text) == ["nameserver 192.0.2.53"]
    assert "127.0.0.53" in netfiles.host_resolv_conf(host_network=True, **machine)


def test_stub_without_the_other_file(machine: dict[str, str]) -> None:
    machine["resolved"] += ".missing"
    assert "127.0.0.53" in netfiles.host_resolv_conf(host_network=False, **machine)


def test_host_without_resolver(machine: dict[str, str]) -> None:
    machine["path"] += ".missing"
    assert netfiles.host_resolv_conf(host_network=False, **machine) == ""
