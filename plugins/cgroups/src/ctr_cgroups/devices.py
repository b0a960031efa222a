"""A device allow-list as lines for v1's device controller and as a BPF program for v2.

Both mean the same.  Of an access (any of read, write, mknod) every part is looked up on its
own: the last rule that speaks of the device and of that part decides, and without one it is
denied.  The access is allowed when each of its parts is.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ctr.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ctr.models import DeviceRule

# from linux/bpf.h, BPF_DEVCG_…
ACCESS = {"m": 1, "r": 2, "w": 4}
TYPES = {"b": 1, "c": 2}
ALL = 7


class _Entry(NamedTuple):
    """One exception of v1's list; -1 is any number."""

    type: str
    major: int
    minor: int


def v1_lines(rules: Sequence[DeviceRule]) -> list[tuple[str, str]]:
    """``(devices.allow or devices.deny, line)`` in the order to write.

    The kernel keeps one default and a list of exceptions to it, looks for one exception
    that covers the whole access, and takes an exception back only as it was made
    (Documentation/admin-guide/cgroup-v1/devices.rst).  So the rules are reduced to such a
    list here.  Raises InvalidError where there is none: a device can't be taken out of a
    range that was allowed.
    """
    default = False
    exceptions: dict[_Entry, int] = {}
    for rule in rules:
        bits = access_bits(rule)
        if (rule.type, rule.major, rule.minor, bits) == ("a", -1, -1, ALL):
            default = rule.allow
            exceptions.clear()
            continue
        for kind in TYPES if rule.type == "a" else rule.type:
            entry = _Entry(kind, rule.major, rule.minor)
            if rule.allow != default:
                _add(exceptions, entry, bits)
            else:
                _take_back(exceptions, entry, bits, rule)
    lines = [("devices.allow", "a") if default else ("devices.deny", "a")]
    file = "devices.deny" if default else "devices.allow"
    for entry, bits in exceptions.items():
        if bits:
            major, minor = ("*" if number < 0 else number for number in entry[1:])
            letters = "".join(letter for letter, bit in ACCESS.items() if bits & bit)
            lines.append((file, f"{entry.type} {major}:{minor} {letters}"))
    return lines


def _add(exceptions: dict[_Entry, int], new: _Entry, bits: int) -> None:
    """Add an exception so that whatever several together cover, one covers too."""
    bits |= exceptions.get(new, 0)
    for other, more in list(exceptions.items()):
        if _covers(other, new):
            bits |= more
        elif common := _intersection(other, new):
            exceptions[common] = exceptions.get(common, 0) | bits | more
    exceptions[new] = bits


def _take_back(exceptions: dict[_Entry, int], entry: _Entry, bits: int, rule: DeviceRule) -> None:
    for other, held in exceptions.items():
        if _covers(entry, other):
            exceptions[other] = held & ~bits
        elif held & bits and _intersection(other, entry):
            verb = "allow" if rule.allow else "deny"
            raise InvalidError(
                f"cannot {verb} device {_text(entry)}: "
                f"cgroup v1 can't make an exception to {_text(other)}",
                hint="name the devices one by one instead of the range, or use cgroup v2",
            )


def _covers(wide: _Entry, narrow: _Entry) -> bool:
    return (
        wide.type == narrow.type
        and wide.major in (-1, narrow.major)
        and wide.minor in (-1, narrow.minor)
    )


def _intersection(one: _Entry, other: _Entry) -> _Entry | None:
    if (
        one.type != other.type
        or (one.major != other.major and one.major >= 0 and other.major >= 0)
        or (one.minor != other.minor and one.minor >= 0 and other.minor >= 0)
    ):
        return None
    return _Entry(one.type, max(one.major, other.major), max(one.minor, other.minor))


def _text(entry: _Entry) -> str:
    major, minor = ("*" if number < 0 else number for number in entry[1:])
    return f"{entry.type} {major}:{minor}"


def access_bits(rule: DeviceRule) -> int:
    """The rule's access as BPF_DEVCG_ACC_… bits.  Raises InvalidError for a malformed rule."""
    if rule.type not in ("a", "b", "c") or not set(rule.access) <= set(ACCESS):
        raise InvalidError(f"cannot use the device rule {rule}: unknown type or access")
    return sum(ACCESS[letter] for letter in set(rule.access))


# -- v2 -----------------------------------------------------------------------------------

# from linux/bpf_common.h and linux/bpf.h
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_COPY = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_AND = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
_SHIFT_RIGHT = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
_JUMP_NOT_EQUAL = 0x56  # BPF_JMP32 | BPF_JNE | BPF_K
_JUMP_ANY_BIT = 0x46  # BPF_JMP32 | BPF_JSET | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_EXIT = 0x95  # BPF_JMP | BPF_EXIT

_RESULT, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR = range(6)  # registers


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One struct bpf_insn (linux/bpf.h)."""
    return struct.pack("<BBhI", code, src << 4 | dst, offset, value & 0xFFFFFFFF)


def program(rules: Iterable[DeviceRule]) -> bytes:
    """The rules as a program of type BPF_PROG_TYPE_CGROUP_DEVICE (an array of struct bpf_insn).

    It goes through the rules from the last to the first with the parts of the access that
    are still undecided: an allowing rule takes its parts away and none left means yes, a
    denying rule that speaks of one means no.  Raises InvalidError for a malformed rule.
    """
    # struct bpf_cgroup_dev_ctx: u32 access << 16 | type, u32 major, u32 minor
    code = [
        instruction(_LOAD_WORD, _TYPE, _CONTEXT, 0),
        instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
        instruction(_COPY, _WANTED, _TYPE),
        instruction(_SHIFT_RIGHT, _WANTED, value=16),
        instruction(_AND, _TYPE, value=0xFFFF),
    ]
    for rule in reversed(list(rules)):
        code += _rule(rule)
    return b"".join(code) + _answer(0)


def _rule(rule: DeviceRule) -> list[bytes]:
    bits = access_bits(rule)
    if rule.allow:
        act = [
            instruction(_AND, _WANTED, value=~bits),
            instruction(_JUMP_NOT_EQUAL, _WANTED, offset=2, value=0),
            _answer(1),
        ]
    else:
        act = [
            instruction(_JUMP_ANY_BIT, _WANTED, offset=1, value=bits),
            instruction(_JUMP, offset=2),
            _answer(0),
        ]
    tests = []
    if rule.type != "a":
        tests.append((_TYPE, TYPES[rule.type]))
    if rule.major >= 0:
        tests.append((_MAJOR, rule.major))
    if rule.minor >= 0:
        tests.append((_MINOR, rule.minor))
    length = len(tests) + 4  # of this rule: the last act is two instructions
    return [
        instruction(_JUMP_NOT_EQUAL, register, offset=length - index - 1, value=value)
        for index, (register, value) in enumerate(tests)
    ] + act


def _answer(value: int) -> bytes:
    return instruction(_MOVE, _RESULT, value=value) + instruction(_EXIT)
