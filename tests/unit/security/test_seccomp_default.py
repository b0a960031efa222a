"""What the default profile lets through, and what it does not."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from ctr.errors import UnsupportedError
from ctr.security.capabilities import ALL, DEFAULT, NAMES, mask_of
from ctr.security.seccomp.compiler import AUDIT_ARCH, MAX_INSTRUCTIONS, compile_profile
from ctr.security.seccomp.default import default_profile
from ctr.security.seccomp.profile import ALLOW, ENOSYS, EPERM, ERRNO, KILL_THREAD
from ctr.security.seccomp.syscalls import X32_BIT, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Decide = Callable[[bytes, int, int, Sequence[int]], int]
    Ask = Callable[..., int]

REFUSED = ERRNO | EPERM
ADMIN = mask_of(["SYS_ADMIN"])
DANGEROUS = """
    mount umount2 setns unshare keyctl add_key request_key bpf perf_event_open reboot swapon
    init_module kexec_load open_by_handle_at userfaultfd pivot_root io_uring_setup acct
    settimeofday process_madvise move_mount fsopen open_tree quotactl vhangup
"""
ORDINARY = """
    read write openat close execve exit_group mprotect futex wait4 getpid ptrace seccomp prctl
    setresuid chroot landlock_restrict_self memfd_create statx clock_gettime sendmsg connect
    epoll_ctl futex_wake mseal
"""
ARCHES = ("x86_64", "i386", "x32", "aarch64", "arm")


@cache
def compiled(machine: str, capabilities: int) -> bytes:
    return compile_profile(default_profile(machine, capabilities))


@pytest.fixture
def ask(decide: Decide) -> Ask:
    """``ask(arch, name, *arguments, capabilities=…)``: the profile's answer."""

    def answer(arch: str, name: str, *arguments: int, capabilities: int = DEFAULT) -> int:
        machine = "aarch64" if arch in ("aarch64", "arm") else "x86_64"
        program = compiled(machine, capabilities)
        number = numbers(arch)[name]
        if arch == "x32":
            return decide(program, AUDIT_ARCH["x86_64"], number | X32_BIT, arguments)
        return decide(program, AUDIT_ARCH[arch], number, arguments)

    return answer


@pytest.mark.parametrize("arch", ARCHES)
def test_refused(ask: Ask, arch: str) -> None:
    assert {ask(arch, name) for name in DANGEROUS.split()} == {REFUSED}


@pytest.mark.parametrize("arch", ARCHES)
def test_allowed(ask: Ask, arch: str) -> None:
    assert {ask(arch, name) for name in ORDINARY.split()} == {ALLOW}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("bit", [17, 25, 26, 27, 28, 29, 30])  # CLONE_NEW…
def test_clone_makes_no_namespaces(ask: Ask, arch: str, bit: int) -> None:
    thread = 0x3D0F00
    assert ask(arch, "clone", thread) == ALLOW
    assert ask(arch, "clone", thread | 1 << bit) == REFUSED
    assert ask(arch, "clone", thread | 1 << bit, capabilities=ADMIN) == ALLOW


@pytest.mark.parametrize("arch", ARCHES)
def test_clone3_sends_the_c_library_to_clone(ask: Ask, arch: str) -> None:
    assert ask(arch, "clone3") == ERRNO | ENOSYS
    assert ask(arch, "clone3", capabilities=ADMIN) == ALLOW


@pytest.mark.parametrize("arch", ARCHES)
def test_sockets(ask: Ask, arch: str) -> None:
    answers = {family: ask(arch, "socket", family) for family in range(50)}
    refused = {family for family, answer in answers.items() if answer != ALLOW}
    assert refused == {38, 40, 46, 47, 48, 49}  # AF_ALG, AF_VSOCK, none yet


@pytest.mark.parametrize("family", [38, 40])
@pytest.mark.parametrize("high", [1 << 32, 1 << 63])
def test_sockets_by_the_upper_half(ask: Ask, family: int, high: int) -> None:
    """The kernel takes the lower 32 bits as the family, so the upper must not help."""
    assert ask("x86_64", "socket", family | high) == REFUSED
    assert ask("aarch64", "socket", family | high) == REFUSED


def test_personalities(ask: Ask) -> None:
    allowed = {value for value in (*range(64), 0x20000, 0x20008, 0x0040000, 0xFFFFFFFF)
               if ask("x86_64", "personality", value) == ALLOW}  # fmt: skip
    assert allowed == {0, 8, 0x20000, 0x20008, 0xFFFFFFFF}


@pytest.mark.parametrize(
    ("capability", "names"),
    {
        "SYS_ADMIN": ["mount", "unshare", "setns", "bpf", "fsopen", "sethostname"],
        "DAC_READ_SEARCH": ["open_by_handle_at"],
        "SYS_MODULE": ["init_module", "finit_module", "delete_module"],
        "SYS_BOOT": ["reboot"],
        "SYS_CHROOT": ["chroot"],
        "SYS_PACCT": ["acct"],
        "SYS_PTRACE": ["kcmp", "pidfd_getfd", "process_madvise"],
        "SYS_RAWIO": ["ioperm", "iopl"],
        "SYS_TIME": ["settimeofday", "clock_settime"],
        "SYS_TTY_CONFIG": ["vhangup"],
        "SYS_NICE": ["mbind", "set_mempolicy"],
        "SYSLOG": ["syslog"],
        "BPF": ["bpf"],
        "PERFMON": ["perf_event_open"],
    }.items(),
)
def test_capabilities_open_what_they_govern(ask: Ask, capability: str, names: list[str]) -> None:
    for name in names:
        assert ask("x86_64", name, capabilities=mask_of([capability])) == ALLOW
        assert ask("x86_64", name, capabilities=0) == REFUSED


@pytest.mark.parametrize("capabilities", [0, DEFAULT, ALL])
def test_never_allowed(ask: Ask, capabilities: int) -> None:
    for name in ("keyctl", "add_key", "request_key", "kexec_load", "swapon", "userfaultfd"):
        assert ask("x86_64", name, capabilities=capabilities) == REFUSED


@pytest.mark.parametrize("arch", ARCHES)
def test_later_calls_do_not_exist(decide: Decide, arch: str) -> None:
    """A C library that tries a call of a later kernel must see ENOSYS to fall back."""
    machine = "aarch64" if arch in ("aarch64", "arm") else "x86_64"
    program = compile_profile(default_profile(machine, DEFAULT))
    base = X32_BIT if arch == "x32" else 0
    audit = AUDIT_ARCH["x86_64" if arch == "x32" else arch]
    known = 547 if arch == "x32" else 466  # x32 has entries of its own above the common ones
    assert decide(program, audit, base + known, ()) == ALLOW
    for number in (known + 1, 1000, 0x3FFFFFFF):
        assert decide(program, audit, base + number, ()) == ERRNO | ENOSYS


def test_foreign_architecture_is_killed(decide: Decide) -> None:
    program = compile_profile(default_profile("x86_64", DEFAULT))
    assert decide(program, AUDIT_ARCH["aarch64"], 63, ()) == KILL_THREAD


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("capabilities", [0, DEFAULT, ALL])
def test_fits(machine: str, capabilities: int) -> None:
    program = compile_profile(default_profile(machine, capabilities))
    assert len(program) % 8 == 0
    assert len(program) // 8 < MAX_INSTRUCTIONS / 4


def test_every_name_is_a_system_call() -> None:
    known = set().union(*(numbers(arch) for arch in ARCHES))
    for capabilities in (0, ALL):
        for rule in default_profile("x86_64", capabilities).rules:
            assert set(rule.names) <= known


def test_capabilities_without_calls_of_their_own_change_nothing() -> None:
    opening = [
        name
        for name in NAMES
        if default_profile("x86_64", mask_of([name])) != default_profile("x86_64", 0)
    ]
    assert len(opening) == 14


def test_unknown_machine() -> None:
    with pytest.raises(UnsupportedError, match="sparc64"):
        default_profile("sparc64", DEFAULT)
