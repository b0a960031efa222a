"""Which sysctls a container may set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.errors import CtrError, InvalidError
from ctr.security.sysctl import IPC, defaults, parse

if TYPE_CHECKING:
    from pathlib import Path


def own(text: str) -> tuple[str, str]:
    return parse(text, private_network=True, private_ipc=True)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("net.ipv4.ip_forward=1", "net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/eth0.1/forwarding=1", "net/ipv4/conf/eth0.1/forwarding", "1"),
        ("net.ipv4.conf.eth0/1.forwarding=1", "net/ipv4/conf/eth0.1/forwarding", "1"),
        ("kernel.sem=32000 1024000000 500 32000", "kernel/sem", "32000 1024000000 500 32000"),
        ("fs.mqueue.msg_max=5", "fs/mqueue/msg_max", "5"),
        ("kernel.shm_rmid_forced=", "kernel/shm_rmid_forced", ""),
        ("net.core.a=b=c", "net/core/a", "b=c"),
    ],
)
def test_allowed(text: str, path: str, value: str) -> None:
    assert own(text) == (path, value)


@pytest.mark.parametrize(
    "text",
    [
        "kernel.panic=1",
        "kernel.core_pattern=|/evil",
        "kernel.semx=1",
        "vm.swappiness=1",
        "fs.file-max=1",
        "fs.mqueuex.a=1",
        "netx.a=1",
        "kernel/sysrq=1",
    ],
)
def test_not_namespaced(text: str) -> None:
    with pytest.raises(InvalidError, match="would change the host"):
        own(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "net",
        "net=1",
        "net.ipv4.ip_forward",
        "=1",
        ".net.a=1",
        "/net/a=1",
        "net..a=1",
        "net/../kernel/core_pattern=x",
        "net.//.kernel.core_pattern=x",
        "net/./a=1",
        "net.ipv4.a b=1",
        "net.ipv4.a=1\n2",
        "net.ipv4.a\0=1",
        "net.ipv4.a.=1",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(InvalidError):
        own(text)


@pytest.mark.parametrize("name", ["hostname", "domainname"])
def test_names_have_flags(name: str) -> None:
    with pytest.raises(InvalidError) as caught:
        own(f"kernel.{name}=x")
    assert f"--{name}" in caught.value.hint


def test_shared_namespaces() -> None:
    with pytest.raises(InvalidError, match="network namespace"):
        parse("net.core.somaxconn=1", private_network=False, private_ipc=True)
    for name in (*IPC, "fs.mqueue.msg_max"):
        with pytest.raises(InvalidError, match="ipc namespace"):
            parse(f"{name}=1", private_network=True, private_ipc=False)


@given(st.text(alphabet="net./fskrlmqu=-1 \0", max_size=30))
def test_any_text_stays_below_its_namespace(text: str) -> None:
    try:
        path, _ = own(text)
    except CtrError:
        return
    assert path.startswith(("net/", "fs/mqueue/", "kernel/"))
    assert not {"", ".", ".."} & set(path.split("/"))


def test_defaults(tmp_path: Path) -> None:
    (tmp_path / "net/ipv4").mkdir(parents=True)
    assert defaults(user_namespace=False, root=str(tmp_path)) == []
    for name in ("ip_unprivileged_port_start", "ping_group_range"):
        (tmp_path / "net/ipv4" / name).touch()
    ports = ("net/ipv4/ip_unprivileged_port_start", "0")
    ping = ("net/ipv4/ping_group_range", "0 2147483647")
    assert defaults(user_namespace=False, root=str(tmp_path)) == [ports, ping]
    assert defaults(user_namespace=True, root=str(tmp_path)) == [ports]
