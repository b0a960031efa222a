"""The device allow-list: v1's lines and v2's program mean what the rules mean."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctr.errors import InvalidError
from ctr.models import DeviceRule
from ctr_cgroups.devices import ACCESS, TYPES, program, v1_lines


def meaning(rules, kind, major, minor, wanted):
    """The law: for each part of the access the last rule that speaks of it decides."""
    for letter in wanted:
        for rule in reversed(rules):
            if (
                rule.type in ("a", kind)
                and rule.major in (-1, major)
                and rule.minor in (-1, minor)
                and letter in rule.access
            ):
                if not rule.allow:
                    return False
                break
        else:
            return False
    return True


def run_program(code, kind, major, minor, wanted):
    """A BPF interpreter of the few instructions that there are."""
    bits = sum(ACCESS[letter] for letter in wanted)
    context = struct.pack("<III", bits << 16 | TYPES[kind], major, minor)
    registers: list[Any] = [None] * 11
    registers[1] = "context"
    lines = [struct.unpack_from("<BBhi", code, at) for at in range(0, len(code), 8)]
    at = 0
    for _ in range(len(lines)):  # there are no loops
        opcode, both, offset, value = lines[at]
        dst, src = both & 15, both >> 4
        at += 1
        if opcode == 0x61:  # dst = *(u32 *)(src + offset)
            assert registers[src] == "context"
            (registers[dst],) = struct.unpack_from("<I", context, offset)
        elif opcode == 0xB7:
            registers[dst] = value
        elif opcode == 0xBF:
            registers[dst] = registers[src]
        elif opcode == 0x57:
            registers[dst] &= value
        elif opcode == 0x77:
            registers[dst] >>= value
        elif opcode == 0x56:  # on 32 bits
            if registers[dst] != value & 0xFFFFFFFF:
                at += offset
        elif opcode == 0x46:
            if registers[dst] & value:
                at += offset
        elif opcode == 0x05:
            at += offset
        elif opcode == 0x95:
            return bool(registers[0])
        else:
            raise AssertionError(f"opcode {opcode:#x}")
    raise AssertionError("ran past its end")


class V1Group:
    """The v1 device controller (security/device_cgroup.c): a default and exceptions."""

    def __init__(self, lines):
        self.allow = True
        self.exceptions: dict[tuple[str, str, str], set[str]] = {}
        for file, line in lines:
            assert file in ("devices.allow", "devices.deny")
            verb = file == "devices.allow"
            if line == "a":
                self.allow = verb
                self.exceptions = {}
                continue
            kind, numbers, access = line.split()
            key = (kind, *numbers.split(":"))
            if verb == self.allow:
                left = self.exceptions.get(key, set()) - set(access)
                self.exceptions[key] = left
            else:
                self.exceptions[key] = self.exceptions.get(key, set()) | set(access)

    def allows(self, kind, major, minor, wanted):
        found = [
            access
            for (k, a, i), access in self.exceptions.items()
            if k == kind and a in ("*", str(major)) and i in ("*", str(minor))
        ]
        if self.allow:
            return not any(set(wanted) & access for access in found)
        return any(set(wanted) <= access for access in found)


numbers = st.integers(-1, 2)
accesses = st.sets(st.sampled_from("rwm"), min_size=1).map("".join)
rules_strategy = st.lists(
    st.builds(DeviceRule, st.booleans(), st.sampled_from("abc"), numbers, numbers, accesses),
    max_size=7,
)
requests = st.tuples(st.sampled_from("bc"), st.integers(0, 3), st.integers(0, 3), accesses)

ALLOW_ALL = DeviceRule(True, "a", -1, -1, "rwm")


@given(rules_strategy, requests)
@example([DeviceRule(True, "c", 1, 3, "rwm"), DeviceRule(False, "c", 1, 3, "w")], ("c", 1, 3, "rw"))
def test_program(rules, request_):
    assert run_program(program(rules), *request_) == meaning(rules, *request_)


@given(rules_strategy, requests)
@example([DeviceRule(True, "c", 1, -1, "r"), DeviceRule(True, "c", -1, 3, "w")], ("c", 1, 3, "rw"))
@example([ALLOW_ALL, DeviceRule(False, "c", 1, -1, "w")], ("c", 1, 3, "rw"))
def test_v1_lines(rules, request_):
    """Where v1 can express the rules at all, its list means the same."""
    try:
        lines = v1_lines(rules)
    except InvalidError:
        return
    assert V1Group(lines).allows(*request_) == meaning(rules, *request_)


@given(st.lists(st.builds(DeviceRule, st.just(True), st.sampled_from("abc"), numbers, numbers,
                          accesses), max_size=7))  # fmt: skip
def test_v1_takes_every_allow_list(rules):
    assert v1_lines(rules)


def test_v1_refuses_an_exception_to_a_range():
    rules = [DeviceRule(True, "c", 1, -1, "rwm"), DeviceRule(False, "c", 1, 3, "w")]
    with pytest.raises(InvalidError, match=r"cannot deny device c 1:3.*c 1:\*") as caught:
        v1_lines(rules)
    assert "v2" in caught.value.hint


def test_v1_lines_of_a_short_list():
    rules = [
        DeviceRule(True, "a", -1, -1, "m"),
        DeviceRule(True, "c", 1, 3, "rw"),
        DeviceRule(True, "c", 1, 5, "rw"),
        DeviceRule(False, "c", 1, 5, "rw"),
    ]
    assert v1_lines(rules) == [
        ("devices.deny", "a"),
        ("devices.allow", "b *:* m"),
        ("devices.allow", "c *:* m"),
        ("devices.allow", "c 1:3 mrw"),
        ("devices.allow", "c 1:5 m"),
    ]


def test_nothing_and_everything():
    assert v1_lines([]) == [("devices.deny", "a")]
    assert v1_lines([ALLOW_ALL]) == [("devices.allow", "a")]
    assert run_program(program([ALLOW_ALL]), "b", 8, 0, "rwm")
    assert not run_program(program([]), "c", 1, 3, "r")


def test_large_numbers():
    rules = [DeviceRule(True, "c", 0xFFFFFFFF, 0x80000000, "r")]
    assert run_program(program(rules), "c", 0xFFFFFFFF, 0x80000000, "r")
    assert not run_program(program(rules), "c", 0xFFFFFFFF, 0, "r")


@pytest.mark.parametrize(
    "rule", [DeviceRule(True, "x", 1, 3, "r"), DeviceRule(True, "c", 1, 3, "x")]
)
def test_malformed(rule):
    for compile_ in (v1_lines, program):
        with pytest.raises(InvalidError, match="device rule"):
            compile_([rule])
