"""bpf(2), as much of it as a device allow-list of cgroup v2 needs."""

from __future__ import annotations

import ctypes
import os
import struct

from ctr.errors import UnsupportedError

# from linux/bpf.h
_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_PROG_QUERY = 16
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_F_ALLOW_MULTI = 2

#: Programs that a group can have at most (BPF_CGROUP_MAX_PROGS).
_MAX_PROGRAMS = 64

# from asm/unistd.h: x86_64, else the generic table's
_NR_bpf = 321 if os.uname().machine == "x86_64" else 280


def replace_device_program(group: int, program: bytes) -> None:
    """Let ``program`` alone decide about devices in the group behind the descriptor.

    The new one is attached before the old ones go, so that at no time more is allowed than
    by one of them.  The kernel holds it as long as the group exists.  What groups above deny
    stays denied.  Raises OSError, and UnsupportedError on a kernel without CGROUP_BPF.
    """
    old = _attached(group)
    fd = _load(program)
    try:
        _bpf(_PROG_ATTACH, struct.pack("<IIII", group, fd, _CGROUP_DEVICE, _F_ALLOW_MULTI))
    finally:
        os.close(fd)
    for identifier in old:
        fd = _bpf(_PROG_GET_FD_BY_ID, struct.pack("<III", identifier, 0, 0))
        try:
            _bpf(_PROG_DETACH, struct.pack("<IIII", group, fd, _CGROUP_DEVICE, 0))
        finally:
            os.close(fd)


def _load(program: bytes) -> int:
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "<IIQQIIQII16sI",
        _PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,  # no log: what is loaded is always of the one form that ``devices`` makes
        0,
        0,
        0,
        0,
        b"ctr_devices",
        0,
    )
    return _bpf(_PROG_LOAD, attributes)


def _attached(group: int) -> tuple[int, ...]:
    """The ids of the group's own device programs."""
    ids = (ctypes.c_uint32 * _MAX_PROGRAMS)()
    # target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_cnt
    attributes = ctypes.create_string_buffer(
        struct.pack("<IIIIQI", group, _CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), len(ids))
    )
    _call(_PROG_QUERY, attributes)
    (count,) = struct.unpack_from("<I", attributes, 24)
    return tuple(ids[:count])


def _bpf(command: int, attributes: bytes) -> int:
    return _call(command, ctypes.create_string_buffer(attributes, len(attributes)))


def _call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(
        ctypes.c_long(_NR_bpf), ctypes.c_int(command), attributes, ctypes.c_uint(len(attributes))
    )
    if result < 0:
        code = ctypes.get_errno()
        if command == _PROG_QUERY and code in (22, 38):  # EINVAL, ENOSYS
            raise UnsupportedError(
                "cannot set the device allow-list: this kernel has no BPF for control groups",
                hint="it needs CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF",
            )
        raise OSError(code, os.strerror(code), f"bpf({command})")
    return result
