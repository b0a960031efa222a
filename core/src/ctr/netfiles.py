"""The text of a container's /etc/hosts and /etc/resolv.conf.  Pure but for one reader.

The files are those that docker makes, so that what users rely on holds here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What docker and podman fall back to when the host names no resolver that a container in a
#: network of its own can reach.
FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")

#: systemd-resolved's stub, and the file in which it lists the servers behind it.
_STUB = "127.0.0.53"
_RESOLVED = "/run/systemd/resolve/resolv.conf"

_LOCALHOST = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def hosts(
    hostname: str,
    domainname: str,
    address: str,
    extra: Sequence[tuple[str, str]],
    *,
    host_text: str | None = None,
) -> str:
    """Return the text of /etc/hosts.

    ``address`` (with or without prefix length; empty without a network) is the container's
    own; ``extra`` are pairs of name and address.  ``host_text`` is the host's file where the
    container shares the host's network: it is kept, and only ``extra`` is added.
    """
    lines = [f"{ip}\t{name}\n" for name, ip in extra]
    if host_text is not None:
        newline = "\n" if host_text and not host_text.endswith("\n") else ""
        return host_text + newline + "".join(lines)
    if address:
        names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
        lines.append(f"{address.partition('/')[0]}\t{names}\n")
    return _LOCALHOST + "".join(lines)


def host_resolv_conf(
    *, host_network: bool, path: str = "/etc/resolv.conf", resolved: str = _RESOLVED
) -> str:
    """Return the text of the host's resolver file that a container should start from.

    Where the host only asks systemd-resolved's stub on 127.0.0.53, which a network of the
    container's own can't reach, that is the file with the servers behind the stub.  A host
    without the file gives an empty text.
    """
    text = _read(path)
    if host_network or _Resolver(text).servers != [_STUB]:
        return text
    return _read(resolved) or text


def resolv_conf(
    host_text: str,
    servers: Sequence[str],
    searches: Sequence[str],
    options: Sequence[str],
    *,
    host_network: bool,
) -> str:
    """Return the text of /etc/resolv.conf; see resolv.conf(5).

    ``servers``, ``searches`` and ``options`` each replace what ``host_text`` has; a single
    search domain ``.`` means none.  In a network of the container's own, which is IPv4
    only, the host's loopback and IPv6 servers are left out; when none remains the public
    ones of FALLBACK_SERVERS are named, as docker and podman do.  Servers that were asked
    for are never left out.  Without any wish the host's network gets the host's own text.
    Raises InvalidError for a server that is no address and for what would break a line.
    """
    if host_network and not (servers or searches or options):
        return host_text
    host = _Resolver(host_text)
    for server in servers:
        if not _is_address(server):
            raise InvalidError(f"cannot use DNS server {server!r}: it is not an IP address")
    for what, words in (("search domain", searches), ("DNS option", options)):
        for word in words:
            if word.split() != [word] or not word.isprintable():
                raise InvalidError(f"cannot use {what} {word!r}: it is not one word")
    chosen = list(servers) or host.servers
    if not servers and not host_network:
        chosen = [server for server in host.servers if _is_reachable(server)]
        chosen = chosen or list(FALLBACK_SERVERS)
    domains = [] if list(searches) == ["."] else list(searches) or host.searches
    lines = [f"nameserver {server}\n" for server in chosen]
    if domains:
        lines.append(f"search {' '.join(domains)}\n")
    if wanted := list(options) or host.options:
        lines.append(f"options {' '.join(wanted)}\n")
    return "".join(lines)


def parse_add_host(text: str, host_gateway: str = "") -> tuple[str, str]:
    """Return name and address of ``NAME:ADDRESS`` or ``NAME=ADDRESS`` (``--add-host``).

    The address is IPv4 or IPv6, the latter with or without brackets, or ``host-gateway``
    for ``host_gateway``.  Raises InvalidError.
    """
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not separator or not name.strip("-.") or not _NAME_CHARACTERS.issuperset(name):
        raise InvalidError(
            f"cannot add host {text!r}: it is not of the form NAME:ADDRESS",
            hint="as in --add-host db.example:192.0.2.7 or --add-host db=2001:db8::7",
        )
    if address == "host-gateway":
        if not host_gateway:
            raise InvalidError(f"cannot add host {text!r}: this network has no gateway")
        return name, host_gateway
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if not _is_address(address):
        raise InvalidError(f"cannot add host {text!r}: {address!r} is not an IP address")
    return name, address


class _Resolver:
    """What a resolv.conf says.  Of several search lists the last counts, as in libc."""

    def __init__(self, text: str) -> None:
        self.servers: list[str] = []
        self.searches: list[str] = []
        self.options: list[str] = []
        for line in text.splitlines():
            words = line.split()
            if len(words) < 2:
                continue
            if words[0] == "nameserver":
                self.servers.append(words[1])
            elif words[0] in ("search", "domain"):
                self.searches = [word for word in words[1:] if word != "."]
            elif words[0] == "options":
                self.options += words[1:]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _is_address(text: str) -> bool:
    import _socket  # socket itself costs 4 ms

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _is_reachable(server: str) -> bool:
    return ":" not in server and not server.startswith("127.") and _is_address(server)
