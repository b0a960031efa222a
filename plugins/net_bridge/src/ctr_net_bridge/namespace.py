"""Work inside another network namespace, on the calling thread alone."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from ctr.kernel import CLONE_NEWNET, setns

if TYPE_CHECKING:
    from types import TracebackType


class Inside:
    """``with Inside(netns):`` runs its body in the network namespace behind a descriptor.

    A socket made there stays in that namespace when the thread is back.  See setns(2).
    """

    def __init__(self, netns: int) -> None:
        self._netns = netns
        self._home = -1

    def __enter__(self) -> Self:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self._netns, CLONE_NEWNET)
        except BaseException:
            os.close(self._home)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            setns(self._home, CLONE_NEWNET)
        finally:
            os.close(self._home)


def write_sysctl(path: str, value: str) -> None:
    """Write ``value`` to /proc/sys/net/``path``, as seen from the thread's namespace."""
    fd = os.open(f"/proc/sys/net/{path}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def disable_ipv6(interface: str) -> None:
    """Take IPv6 off an interface before it is set up: no address, no router advertisement.

    The networks are IPv4 only, and a container that may send router advertisements could
    otherwise redirect its neighbours' and the host's traffic (CVE-2020-13401).  Where the
    interface has no such settings there is no IPv6 on it: a kernel without, or an MTU
    below 1280.
    """
    with suppress(FileNotFoundError):
        write_sysctl(f"ipv6/conf/{interface}/accept_ra", "0")
        write_sysctl(f"ipv6/conf/{interface}/disable_ipv6", "1")
