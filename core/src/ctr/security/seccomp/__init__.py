"""System call filters: the default profile, profiles from files, and their compiler.

A ``ctr run`` loads none of them as a rule: the default profile's program is kept in a file
for each set of capabilities (0.1 ms to read, 10 ms to compile).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Filter", "default_filter", "filter_from_file"]

# SECCOMP_FILTER_FLAG_…, from linux/seccomp.h
FLAG_LOG = 1 << 1
FLAG_SPEC_ALLOW = 1 << 2

_MAGIC = b"ctrbpf1\0"
_SOURCES = ("compiler.py", "default.py", "syscalls.py")


class Filter(NamedTuple):
    """A compiled profile: an array of struct sock_filter, and the flags to load it with."""

    program: bytes
    flags: int


def default_filter(capabilities: int, cache: str) -> Filter:
    """The default profile for a container with the mask ``capabilities``, compiled.

    ``cache`` is a folder of ctr's own (mode 0700; made when missing) that keeps the program;
    empty: nothing is read or kept.  The program is compiled again when its file is missing,
    damaged or made by another version, and used all the same when it can't be kept.

    Raises UnsupportedError on an architecture without a profile.
    """
    machine = os.uname().machine

    def build() -> bytes:
        from ctr.security.seccomp.compiler import compile_profile
        from ctr.security.seccomp.default import default_profile

        return compile_profile(default_profile(machine, capabilities))

    path = os.path.join(cache, f"seccomp-{machine}-{capabilities:x}.bpf")
    return Filter(_kept(path, build) if cache else build(), FLAG_SPEC_ALLOW)


def filter_from_file(path: str, capabilities: int) -> Filter:
    """The profile at ``path``, compiled; see ``load.load_profile`` for what it raises."""
    from ctr.security.seccomp.compiler import compile_profile
    from ctr.security.seccomp.load import load_profile

    host = os.uname()
    profile = load_profile(path, host.machine, host.release, capabilities)
    return Filter(compile_profile(profile), profile.flags)


def _kept(path: str, build: Callable[[], bytes]) -> bytes:
    """The program in the file at ``path``; made by ``build`` and kept there if need be."""
    from binascii import crc32

    made_by = _MAGIC + _version()
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        data = b""
    program = data[len(made_by) + 4 :]
    if program and data.startswith(made_by + crc32(program).to_bytes(4, "little")):
        return program
    program = build()
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(made_by + crc32(program).to_bytes(4, "little") + program)
        os.replace(temporary, path)
    except OSError:
        pass  # a full or read-only disk costs time, not the start
    return program


def _version() -> bytes:
    """What changes when the sources do: the change times of their files, 8 bytes each."""
    folder = os.path.dirname(__file__)
    return b"".join(
        os.stat(os.path.join(folder, name)).st_ctime_ns.to_bytes(8, "little") for name in _SOURCES
    )
