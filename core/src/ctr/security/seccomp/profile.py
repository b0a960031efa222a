"""What a seccomp filter decides, before it is a program.

A profile is what the OCI runtime spec calls ``linux.seccomp`` (config-linux.md), with the
conditions on architectures, capabilities and kernels already decided.
"""

from __future__ import annotations

from typing import NamedTuple

from ctr.errors import UnsupportedError
from ctr.security.seccomp import FLAG_SPEC_ALLOW

# SECCOMP_RET_…, from linux/seccomp.h: the action in the upper half, its data in the lower.
KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000

EPERM = 1
ENOSYS = 38

_NATIVE = {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64", "arm")}

#: lt le eq ne ge gt compare unsigned; ``masked`` is (argument & mask) == value.
OPERATORS = ("lt", "le", "eq", "ne", "ge", "gt", "masked")


class Condition(NamedTuple):
    """A comparison of one argument of the system call, 0 to 5."""

    argument: int
    operator: str
    value: int
    mask: int = 0


class Rule(NamedTuple):
    """The ``action`` for each of ``names``, where all conditions hold."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...] = ()


class Profile(NamedTuple):
    """A whole profile.

    A rule without conditions goes before those with conditions, an earlier one before a
    later one.  A name that an architecture does not have is left out there.
    """

    default: int
    architectures: tuple[str, ...]
    rules: tuple[Rule, ...]
    flags: int = FLAG_SPEC_ALLOW


def native(machine: str) -> tuple[str, ...]:
    """The architectures whose programs ``machine`` (uname(2)) executes, its own first.

    Raises UnsupportedError for a machine that the tables do not know.
    """
    if machine not in _NATIVE:
        raise UnsupportedError(
            f"cannot make a seccomp filter: none is known for {machine}",
            hint="run without one: --security-opt seccomp=unconfined",
        )
    return _NATIVE[machine]
