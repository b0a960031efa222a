"""The same rules, compiled by libseccomp and by us, decide the same.

Needs libseccomp.so.2 (Debian: libseccomp2); without it these tests fail.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from ctr.security.capabilities import ALL, DEFAULT, mask_of
from ctr.security.seccomp.compiler import AUDIT_ARCH, compile_profile
from ctr.security.seccomp.default import default_profile
from ctr.security.seccomp.profile import (
    ALLOW,
    ENOSYS,
    ERRNO,
    KILL_PROCESS,
    LOG,
    TRACE,
    TRAP,
    Condition,
    Profile,
    Rule,
)
from ctr.security.seccomp.syscalls import X32_BIT, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Decide = Callable[[bytes, int, int, Sequence[int]], int]

# from seccomp.h
SCMP_ARCH = {
    "x86_64": 0xC000003E,
    "x32": 0x4000003E,
    "i386": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
SCMP_CMP = {"ne": 1, "lt": 2, "le": 3, "eq": 4, "ge": 5, "gt": 6, "masked": 7}
SCMP_FLTATR_CTL_OPTIMIZE = 8
NR_ERROR = -1  # __NR_SCMP_ERROR


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        pytest.fail(f"these tests need the package libseccomp2: {error}")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Comparison),
    ]
    return library


def known_to(library: ctypes.CDLL, profile: Profile) -> Profile:
    """``profile`` without the names that this libseccomp is too old for."""
    rules = []
    for rule in profile.rules:
        names = tuple(
            name
            for name in rule.names
            if library.seccomp_syscall_resolve_name(name.encode()) != NR_ERROR
        )
        rules.append(rule._replace(names=names))
    return profile._replace(rules=tuple(rules))


def export(library: ctypes.CDLL, profile: Profile) -> bytes:
    """The program that libseccomp makes of ``profile``."""
    context = library.seccomp_init(profile.default)
    assert context
    try:
        native = library.seccomp_arch_native()
        wanted = [SCMP_ARCH[arch] for arch in profile.architectures]
        for arch in wanted:
            if arch != native:
                assert library.seccomp_arch_add(context, arch) == 0
        if native not in wanted:
            assert library.seccomp_arch_remove(context, native) == 0
        assert library.seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2) == 0
        for rule in profile.rules:
            if rule.action == profile.default:
                continue
            array = (Comparison * max(len(rule.conditions), 1))(
                *(
                    Comparison(one.argument, SCMP_CMP[one.operator], one.mask, one.value)
                    if one.operator == "masked"
                    else Comparison(one.argument, SCMP_CMP[one.operator], one.value, 0)
                    for one in rule.conditions
                )
            )
            for name in rule.names:
                number = library.seccomp_syscall_resolve_name(name.encode())
                added = library.seccomp_rule_add_array(
                    context, rule.action, number, len(rule.conditions), array
                )
                assert added == 0, f"{name}: {os.strerror(-added)}"
        with tempfile.TemporaryFile() as file:
            assert library.seccomp_export_bpf(context, file.fileno()) == 0
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def questions(profile: Profile) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Every number of every architecture, and for rules with conditions their edges."""
    for arch in profile.architectures:
        table = numbers(arch)
        base = X32_BIT if arch == "x32" else 0
        for number in sorted({*table.values(), *range(max(table.values()) % 0xF0000 + 2)}):
            yield arch, base + number, ()
        if arch == "i386":
            for name in ("socketcall", "ipc"):
                for call in range(26):
                    yield arch, table[name], (call,)
        for rule in profile.rules:
            for condition in rule.conditions:
                for name in rule.names:
                    if name in table:
                        for value in edges(condition, arch):
                            arguments = [0] * 6
                            arguments[condition.argument] = value
                            yield arch, base + table[name], tuple(arguments)
                            yield arch, base + table[name], (value,) * 6


def edges(condition: Condition, arch: str) -> set[int]:
    around = {condition.value + step for step in (-1, 0, 1)} | {0, 1, condition.mask, 0xFFFFFFFF}
    around |= {condition.value ^ bit for bit in (0x8000, 0x80000000, 0x10000000)}
    if arch in ("i386", "arm"):
        return {value & 0xFFFFFFFF for value in around}
    around |= {value | high for value in around for high in (1 << 32, 1 << 63)}
    return {value & (2**64 - 1) for value in around}


def compare(library: ctypes.CDLL, decide: Decide, profile: Profile) -> int:
    profile = known_to(library, profile)
    theirs = export(library, profile)
    ours = compile_profile(profile)
    newest = {
        arch: max(
            (
                numbers(arch)[name]
                for rule in profile.rules
                for name in rule.names
                if rule.action != profile.default and numbers(arch).get(name, 0xF0000) < 0xF0000
            ),
            default=1 << 32,
        )
        for arch in profile.architectures
    }
    asked = 0
    for arch, number, arguments in questions(profile):
        audit = AUDIT_ARCH["x86_64" if arch == "x32" else arch]
        mine = decide(ours, audit, number, arguments)
        if (number & ~X32_BIT) > newest[arch] and mine == ERRNO | ENOSYS:
            continue  # what runc adds to libseccomp's program
        other = decide(theirs, audit, number, arguments)
        assert mine == other, f"{arch} {number} {[hex(one) for one in arguments]}"
        asked += 1
    for audit in (0, 0xC0000015, 0xC00000F3):  # no such, ppc64le, riscv64
        assert decide(ours, audit, 0, ()) == decide(theirs, audit, 0, ())
    return asked


SETS = {
    "docker": DEFAULT,
    "none": 0,
    "all": ALL,
    "admin": mask_of(["SYS_ADMIN"]),
    "others": ALL & ~mask_of(["SYS_ADMIN"]),
}


@pytest.mark.parametrize("capabilities", SETS.values(), ids=SETS)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_default_profile(
    library: ctypes.CDLL, decide: Decide, machine: str, capabilities: int
) -> None:
    assert compare(library, decide, default_profile(machine, capabilities)) > 700


@pytest.mark.parametrize("operator", SCMP_CMP)
@pytest.mark.parametrize("value", [0, 1, 0x8000, 0xFFFFFFFF, 1 << 32, (1 << 63) | 5])
@pytest.mark.parametrize("machine", [("x86_64",), ("aarch64",)])
def test_operators_on_64_bits(
    library: ctypes.CDLL, decide: Decide, machine: tuple[str, ...], operator: str, value: int
) -> None:
    mask = value | 0xF000000F0 if operator == "masked" else 0
    rule = Rule(("openat", "read"), ALLOW, (Condition(2, operator, value, mask),))
    compare(library, decide, Profile(ERRNO | 5, machine, (rule, Rule(("write",), ALLOW))))


@pytest.mark.parametrize("operator", SCMP_CMP)
@pytest.mark.parametrize("value", [0, 1, 0x8000, 0xFFFFFFFF])
@pytest.mark.parametrize("machine", [("x86_64", "i386"), ("aarch64", "arm")])
def test_operators_on_32_bits(
    library: ctypes.CDLL, decide: Decide, machine: tuple[str, ...], operator: str, value: int
) -> None:
    mask = value | 0xF0 if operator == "masked" else 0
    rule = Rule(("openat", "read"), ALLOW, (Condition(2, operator, value, mask),))
    compare(library, decide, Profile(ERRNO | 5, machine, (rule, Rule(("write",), ALLOW))))


@pytest.mark.parametrize("default", [ALLOW, KILL_PROCESS, TRAP, LOG, TRACE | 7, ERRNO | 22])
@pytest.mark.parametrize("action", [ALLOW, KILL_PROCESS, TRAP, LOG, TRACE | 9, ERRNO | 13])
def test_actions(library: ctypes.CDLL, decide: Decide, default: int, action: int) -> None:
    both = (Condition(0, "ge", 3), Condition(1, "le", 7))
    rules = (
        Rule(("read", "exit_group", "socket", "semop"), action),
        Rule(("write", "mmap"), action, both),
        Rule(("write",), action, (Condition(0, "eq", 1),)),
    )
    compare(library, decide, Profile(default, ("x86_64", "i386", "x32"), rules))


def test_tables(library: ctypes.CDLL) -> None:
    """Every number that libseccomp knows is the one of our tables."""
    compared = 0
    for arch, token in SCMP_ARCH.items():
        for name, number in numbers(arch).items():
            known = library.seccomp_syscall_resolve_name_arch(token, name.encode())
            if arch == "x32":
                known &= ~X32_BIT
            if known >= 0:
                assert known == number, f"{name} on {arch}"
                compared += 1
    assert compared > 1700
