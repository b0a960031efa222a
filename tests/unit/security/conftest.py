"""A machine for classic BPF, in Python, to ask a filter for its decisions."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Decide = Callable[[bytes, int, int, Sequence[int]], int]


@pytest.fixture(scope="session")
def decide() -> Decide:
    """``decide(program, audit_arch, number, arguments)`` is the program's return value."""
    return run_filter


def run_filter(program: bytes, arch: int, number: int, arguments: Sequence[int]) -> int:
    """Run ``program`` on a struct seccomp_data, with the instructions that seccomp(2) takes."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    accumulator = 0
    position = 0
    while True:
        code, jt, jf, k = struct.unpack_from("<HBBI", program, 8 * position)
        position += 1
        match code:
            case 0x20:  # ld [k]
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:  # and #k
                accumulator &= k
            case 0x05:  # ja k
                position += k
            case 0x15:
                position += jt if accumulator == k else jf
            case 0x25:
                position += jt if accumulator > k else jf
            case 0x35:
                position += jt if accumulator >= k else jf
            case 0x06:  # ret #k
                return int(k)
            case _:
                raise AssertionError(f"instruction {position - 1} has code {code:#x}")
