"""From a profile to a program of classic BPF (seccomp(2), Documentation/networking/filter.rst).

The program looks at the architecture, then finds the system call's number by a binary
search over ranges that share an outcome, then, where the outcome depends on arguments,
compares them.  Only its number decides about an ordinary call, so the kernel (since 5.11)
knows the answer without running the program.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ctr.errors import InvalidError
from ctr.security.seccomp.profile import (
    ALLOW,
    ENOSYS,
    ERRNO,
    KILL_THREAD,
    LOG,
    TRACE,
    Condition,
    Profile,
    Rule,
)
from ctr.security.seccomp.syscalls import X32_BIT, multiplexed, numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS, from linux/bpf_common.h

# AUDIT_ARCH_…, from linux/audit.h.  x32 is x86_64 with a bit in the number.
AUDIT_ARCH = {
    "x86_64": 0xC000003E,
    "i386": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
_WIDE = frozenset({"x86_64", "aarch64"})  # 64-bit arguments

# from linux/bpf_common.h
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_JEQ = 0x15
_JGT = 0x25
_JGE = 0x35
_RETURN = 0x06

# Offsets in struct seccomp_data; all architectures here are little-endian.
_NR = 0
_ARCH = 4
_ARGS = 16

_FAIL = -1  # a jump to the next rule
_MAX_JUMP = 255  # of a conditional jump
_LAST_COMMON = 0xF0000  # above it are arm's private calls


class _Instruction(NamedTuple):
    """struct sock_filter; ``jt`` and ``jf`` may still be ``_FAIL``."""

    code: int
    jt: int
    jf: int
    k: int


_Code = list[_Instruction]


def compile_profile(profile: Profile) -> bytes:
    """Compile ``profile`` to an array of struct sock_filter.

    Of a call newer than every one that the profile names the answer is ENOSYS, as runc
    answers: a C library that tries the new call then falls back.  A call of an
    architecture that the profile does not list kills the thread, as libseccomp has it.

    Raises InvalidError for a program longer than the kernel takes.
    """
    sections: list[tuple[int, _Code]] = []
    for arch in profile.architectures:
        if arch == "x32":
            continue
        section = _section(profile, arch)
        if arch == "x86_64":
            x32 = _section(profile, "x32") if "x32" in profile.architectures else _bad_arch()
            section = _branch(X32_BIT, section, x32)
        sections.append((AUDIT_ARCH[arch], [_op(_LOAD, _NR), *section]))
    code = [_op(_LOAD, _ARCH)]
    for audit, section in sections:
        code += [_Instruction(_JEQ, 1, 0, audit), _op(_JUMP, len(section)), *section]
    code += _bad_arch()
    if len(code) > MAX_INSTRUCTIONS:
        raise InvalidError(
            f"cannot use the seccomp profile: {len(code)} instructions are more than"
            f" {MAX_INSTRUCTIONS}",
            hint="join its rules, or name fewer architectures",
        )
    return b"".join(struct.pack("<HBBI", *one) for one in code)


def _section(profile: Profile, arch: str) -> _Code:
    """The decision for one architecture, with the number in the accumulator."""
    outcomes = _outcomes(profile, arch)
    base = X32_BIT if arch == "x32" else 0
    newest = max((number for number in outcomes if number < _LAST_COMMON), default=-1)
    newer = profile.default
    if profile.default not in (ALLOW, LOG) and profile.default & ~0xFFFF != TRACE:
        newer = ERRNO | ENOSYS
    # Ranges as (first number, outcome); each ends where the next begins.
    ranges: list[tuple[int, _Outcome]] = [(base, profile.default)]

    def add(number: int, outcome: _Outcome) -> None:
        if ranges[-1][0] == number:
            ranges.pop()
        if not ranges or ranges[-1][1] != outcome:
            ranges.append((number, outcome))

    for number, outcome in sorted(outcomes.items()):
        add(base + number, outcome)
        add(base + number + 1, newer if number >= newest else profile.default)
    return _search(ranges, profile.default, wide=arch in _WIDE)


_Outcome = int | tuple[Rule, ...]


def _outcomes(profile: Profile, arch: str) -> dict[int, _Outcome]:
    """By number: the action, or the rules that depend on arguments."""
    table = numbers(arch)
    fixed: dict[int, int] = {}
    depends: dict[int, list[Rule]] = {}
    for rule in profile.rules:
        # A rule that says what would happen anyway must not hide a later one.
        if rule.action == profile.default:
            continue
        for name in rule.names:
            number = table.get(name)
            if number is not None and rule.conditions:
                depends.setdefault(number, []).append(rule)
            elif number is not None:
                fixed.setdefault(number, rule.action)
        if arch == "i386" and not rule.conditions:
            for multiplexer, calls in multiplexed().items():
                depends.setdefault(table[multiplexer], []).extend(
                    rule._replace(conditions=(Condition(0, "eq", calls[name]),))
                    for name in rule.names
                    if name in calls
                )
    conditional = {number: tuple(rules) for number, rules in depends.items() if rules}
    return conditional | fixed


def _search(ranges: Sequence[tuple[int, _Outcome]], default: int, *, wide: bool) -> _Code:
    if len(ranges) == 1:
        outcome = ranges[0][1]
        return (
            [_op(_RETURN, outcome)]
            if isinstance(outcome, int)
            else _rules(outcome, default, wide=wide)
        )
    middle = len(ranges) // 2
    return _branch(
        ranges[middle][0],
        _search(ranges[:middle], default, wide=wide),
        _search(ranges[middle:], default, wide=wide),
    )


def _branch(bound: int, below: _Code, above: _Code) -> _Code:
    """Run ``above`` when the accumulator is at least ``bound``, else ``below``."""
    if len(below) <= _MAX_JUMP:
        return [_Instruction(_JGE, len(below), 0, bound), *below, *above]
    return [_Instruction(_JGE, 0, 1, bound), _op(_JUMP, len(below)), *below, *above]


def _rules(rules: Sequence[Rule], default: int, *, wide: bool) -> _Code:
    """The action of the first rule whose conditions all hold."""
    code: _Code = []
    for rule in rules:
        block: _Code = []
        for condition in rule.conditions:
            block += _compare(condition, wide=wide)
        block.append(_op(_RETURN, rule.action))
        code += [
            one._replace(
                jt=len(block) - index - 1 if one.jt == _FAIL else one.jt,
                jf=len(block) - index - 1 if one.jf == _FAIL else one.jf,
            )
            for index, one in enumerate(block)
        ]
    code.append(_op(_RETURN, default))
    return code


def _compare(condition: Condition, *, wide: bool) -> _Code:
    """Go on when the condition holds, else jump to the next rule.

    An argument is two 32-bit words; a 32-bit architecture has the lower one only.
    """
    argument, operator, value, mask = condition
    low, high = value & 0xFFFFFFFF, value >> 32
    word = _ARGS + 8 * argument
    if operator == "masked":
        code = _masked(word, mask & 0xFFFFFFFF, low)
        return _masked(word + 4, mask >> 32, high) + code if wide else code
    code = [_op(_LOAD, word), _LOW[operator]._replace(k=low)]
    if wide:
        upper = [one._replace(k=high) for one in _HIGH[operator]]
        code = [_op(_LOAD, word + 4), *upper, *code]
    return code


#: The comparison of the lower words, the upper ones being equal.
_LOW = {
    "eq": _Instruction(_JEQ, 0, _FAIL, 0),
    "ne": _Instruction(_JEQ, _FAIL, 0, 0),
    "gt": _Instruction(_JGT, 0, _FAIL, 0),
    "ge": _Instruction(_JGE, 0, _FAIL, 0),
    "lt": _Instruction(_JGE, _FAIL, 0, 0),
    "le": _Instruction(_JGT, _FAIL, 0, 0),
}

#: The comparison of the upper words before it: go on to the lower, skip them, or fail.
_HIGH = {
    "eq": (_Instruction(_JEQ, 0, _FAIL, 0),),
    "ne": (_Instruction(_JEQ, 0, 2, 0),),
    "gt": (_Instruction(_JGT, 3, 0, 0), _Instruction(_JEQ, 0, _FAIL, 0)),
    "ge": (_Instruction(_JGT, 3, 0, 0), _Instruction(_JEQ, 0, _FAIL, 0)),
    "lt": (_Instruction(_JGT, _FAIL, 0, 0), _Instruction(_JEQ, 0, 2, 0)),
    "le": (_Instruction(_JGT, _FAIL, 0, 0), _Instruction(_JEQ, 0, 2, 0)),
}


def _masked(word: int, mask: int, value: int) -> _Code:
    if not mask and not value:
        return []
    return [_op(_LOAD, word), _op(_AND, mask), _Instruction(_JEQ, 0, _FAIL, value)]


def _op(code: int, k: int) -> _Instruction:
    return _Instruction(code, 0, 0, k)


def _bad_arch() -> _Code:
    return [_op(_RETURN, KILL_THREAD)]
