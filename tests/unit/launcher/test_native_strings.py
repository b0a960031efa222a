"""The launcher's own string.h, against what Python makes of the same bytes."""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.launcher import build

FUNCTIONS = (
    *("memcpy", "memmove", "memset", "memcmp", "memchr", "strlen", "strnlen", "strcpy"),
    *("strcmp", "strchr", "strrchr", "strspn", "strcspn", "strstr"),
)
# Few letters, so that much is found; two with the high bit, for the signs.
raw = st.lists(st.sampled_from(b"ab/\x80\xff\0"), max_size=40).map(bytes)
text = st.lists(st.sampled_from(b"ab/\x80\xff"), max_size=40).map(bytes)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The functions, as ``own_NAME``, with the flags that the launcher is built with."""
    library = os.fspath(tmp_path_factory.mktemp("strings") / "strings.so")
    (source,) = (
        name for name in build.sources(freestanding=True) if "freestanding_strings" in name
    )
    names = [f"-D{name}=own_{name}" for name in FUNCTIONS]
    flags = ["-std=gnu11", *build.WARNINGS, "-Os", "-fno-builtin", "-shared", "-fPIC", *names]
    subprocess.run([build.compiler(), *flags, "-o", library, source], check=True)
    loaded = ctypes.CDLL(library)
    for name in FUNCTIONS:
        function = getattr(loaded, f"own_{name}")
        if name.endswith("cmp"):
            function.restype = ctypes.c_int
        elif name.endswith(("len", "spn")):
            function.restype = ctypes.c_size_t
        else:
            function.restype = ctypes.c_void_p
    return loaded


def at(pointer: int | None, buffer: Any) -> int:
    """A returned pointer as an index; -1 for NULL."""
    return -1 if pointer is None else pointer - ctypes.addressof(buffer)


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


@given(data=raw, other=raw)
def test_memory(own: Any, data: bytes, other: bytes) -> None:
    size = min(len(data), len(other))
    assert sign(own.own_memcmp(data, other, size)) == sign(
        (data[:size] > other[:size]) - (data[:size] < other[:size])
    )
    buffer = ctypes.create_string_buffer(data, len(data) + 1)
    assert at(own.own_memchr(buffer, 0x80, len(data)), buffer) == data.find(b"\x80")
    assert own.own_strnlen(buffer, len(data)) == (data + b"\0").find(b"\0")
    own.own_memcpy(buffer, other, size)
    assert buffer.raw[: len(data)] == other[:size] + data[size:]
    own.own_memset(buffer, 0x1FF, size)
    assert buffer.raw[: len(data)] == b"\xff" * size + data[size:]


@given(data=st.binary(min_size=1, max_size=60), numbers=st.tuples(*[st.integers(0, 59)] * 3))
def test_overlapping_moves(own: Any, data: bytes, numbers: tuple[int, int, int]) -> None:
    to, start, size = (number % len(data) for number in numbers)
    size = min(size, len(data) - max(to, start))
    buffer = ctypes.create_string_buffer(data, len(data))
    base = ctypes.addressof(buffer)
    own.own_memmove(ctypes.c_void_p(base + to), ctypes.c_void_p(base + start), size)
    assert buffer.raw == data[:to] + data[start : start + size] + data[to + size :]


@given(left=text, right=text)
def test_texts(own: Any, left: bytes, right: bytes) -> None:
    buffer = ctypes.create_string_buffer(left)
    assert own.own_strlen(buffer) == len(left)
    assert sign(own.own_strcmp(left, right)) == (left > right) - (left < right)
    assert at(own.own_strchr(buffer, ord("/")), buffer) == left.find(b"/")
    assert at(own.own_strrchr(buffer, ord("/")), buffer) == left.rfind(b"/")
    assert at(own.own_strchr(buffer, 0), buffer) == len(left)
    assert own.own_strspn(left, right[:2]) == len(left) - len(left.lstrip(right[:2] or b"\0"))
    kept = next((i for i, byte in enumerate(left) if byte in right[:2]), len(left))
    assert own.own_strcspn(left, right[:2]) == kept
    if right:
        assert at(own.own_strstr(buffer, right[:3]), buffer) == left.find(right[:3])
    target = ctypes.create_string_buffer(len(left) + 2)
    own.own_strcpy(target, left)
    assert target.raw == left + b"\0\0"
