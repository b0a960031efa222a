"""Network address translation: one nftables table a network, replaced and removed as a whole.

A table of the network's own (``ctr-BRIDGE``) makes both verbs one atomic transaction that
looks at nothing: no rule to search for, no other network's rules to leave alone.  The
commands go through libnftables in this process (0.1 ms against 3 for a program) or, where
that is missing, through the ``nft`` program.  See nft(8), libnftables(3).
"""

from __future__ import annotations

import ctypes

from ctr.errors import DriverError, UnsupportedError

LIBRARY = "libnftables.so.1"


def enable(bridge: str, subnet: str) -> None:
    """Masquerade what leaves ``subnet`` through another interface than ``bridge``.

    And let nobody outside open a connection into the network: a host that forwards for its
    containers would else carry packets from its neighbours to them.  What stands already is
    replaced.  Raises UnsupportedError when nftables can't do this here.
    """
    error = _run(_rules(bridge, subnet))
    if error:
        raise UnsupportedError(f"cannot set up NAT for bridge {bridge}: {error}", hint=hint())


def disable(bridge: str) -> None:
    """Remove the network's table; one that is not there is a success.

    So is a machine that can't even list it: what failed to be made must be removable.
    """
    table = _table(bridge)
    error = _run(f"add table {table}\ndelete table {table}\n")
    if error and not _run(f"list table {table}"):
        raise DriverError(f"cannot remove the nftables table {table}: {error}")


def refusal() -> str:
    """Tell why ``enable`` can't work here, empty when it can; the kernel checks, then drops."""
    return _run(_rules("ctr-probe", "192.0.2.0/24"), check=True)


def hint() -> str:
    """Say what to do about a refusal: without nftables, and where the kernel is what refuses."""
    if _library() or _program():
        lacks = "the kernel needs nf_tables with NAT (modules nft_chain_nat, nft_masq, nft_ct)"
    else:
        lacks = "install nftables"
    return f"{lacks}, or make the network without NAT: ctr --network-opt nat=false"


def _table(bridge: str) -> str:
    return f"ip ctr-{bridge}"


def _rules(bridge: str, subnet: str) -> str:
    table = _table(bridge)
    return f"""
add table {table}
delete table {table}
table {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{bridge}" iifname != "{bridge}" ct state new,invalid drop
  }}
}}
"""


def _run(commands: str, *, check: bool = False) -> str:
    """Run nft commands as one transaction; return the complaint, empty when there is none.

    With ``check`` the kernel looks at every command and then drops the transaction.
    """
    if library := _library():
        return _run_library(library, commands, check)
    if program := _program():
        return _run_program(program, commands, check)
    return f"neither {LIBRARY} nor the program nft was found"


def _run_library(library: ctypes.CDLL, commands: str, check: bool) -> str:
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_set_dry_run(context, check)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_buffer_output(context)
        if library.nft_run_cmd_from_buffer(context, commands.encode()) == 0:
            return ""
        return _first_line(library.nft_ctx_get_error_buffer(context).decode(errors="replace"))
    finally:
        library.nft_ctx_free(context)


def _run_program(program: str, commands: str, check: bool) -> str:
    import subprocess

    argv = [program, *(["--check"] if check else []), "-f", "-"]
    done = subprocess.run(argv, input=commands, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else _first_line(done.stderr)


def _first_line(text: str) -> str:
    """The complaint without its copy of our commands."""
    line = text.strip().partition("\n")[0]
    return line.rpartition("Error: ")[2] or "nftables gives no reason"


def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return library


def _program() -> str | None:
    import shutil

    return shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
