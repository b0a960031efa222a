r"""The launch program as bytes, for the launcher.

All integers are little-endian.  A program is::

    header   8s magic "ctrprog\\0"   u32 version   u32 flags   u32 operations   u32 size
    then per operation
             u16 opcode   u8 phase   u8 zero   u32 payload size   payload

``size`` counts the whole program, header included.  A payload holds the operation's fields
in order, without padding::

    int               i64
    str               u32 length, that many bytes without NUL, one NUL
    bytes             u32 length, that many bytes
    tuple[int, ...]   u32 count, i64 each
    tuple[str, ...]   u32 count, then each as a str

The launcher refuses another version, an unknown opcode or phase, a phase that goes
backwards, a length that does not fit, trailing bytes and slots out of range.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import ctr.operations  # noqa: F401  (fills OPERATIONS)
from ctr.errors import InvalidError
from ctr.program import OPERATIONS, Operation, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"ctrprog\0"
VERSION = 1
MAX_SIZE = 4 << 20  # bytes; execve's own limit on arguments is below that

#: Header flag: report each operation before it runs.
TRACE = 1

_HEADER = struct.Struct("<8s4I")
_RECORD = struct.Struct("<HBBI")
_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")


def encode(operations: Sequence[Operation], *, flags: int = 0) -> bytes:
    """Return the program's bytes.  Raises InvalidError for what can't be encoded."""
    parts = [b""]
    phase = 0
    for operation in operations:
        if operation.phase < phase:
            raise InvalidError(f"cannot encode {operation!r}: its phase goes backwards")
        phase = operation.phase
        payload = b"".join(
            [_PACK[kind](getattr(operation, name)) for name, kind in operation.fields]
        )
        parts.append(_RECORD.pack(operation.opcode, phase, 0, len(payload)))
        parts.append(payload)
    size = _HEADER.size + sum(map(len, parts))
    if size > MAX_SIZE:
        raise InvalidError(
            f"cannot encode the launch program: {size} bytes are more than {MAX_SIZE}",
            hint="shorten the command's arguments or its environment",
        )
    parts[0] = _HEADER.pack(MAGIC, VERSION, flags, len(operations), size)
    return b"".join(parts)


def decode(data: bytes) -> tuple[list[Operation], int]:
    """Return the operations and the header's flags.  Raises InvalidError for any damage."""
    try:
        return _decode(data)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise InvalidError(f"cannot decode the launch program: {error}") from error


def _decode(data: bytes) -> tuple[list[Operation], int]:
    magic, version, flags, count, size = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("no launch program")
    if version != VERSION:
        raise ValueError(f"version {version}, this is version {VERSION}")
    if size != len(data) or size > MAX_SIZE:
        raise ValueError(f"{len(data)} bytes where the header says {size}")
    offset = _HEADER.size
    operations: list[Operation] = []
    last = 0
    while offset < len(data):
        opcode, phase, zero, length = _RECORD.unpack_from(data, offset)
        offset += _RECORD.size
        if zero or phase < last or length > len(data) - offset:
            raise ValueError(f"operation {len(operations)} is damaged")
        last = phase
        cls = OPERATIONS.get(opcode)
        if cls is None:
            raise ValueError(f"unknown operation {opcode}")
        reader = _Reader(data, offset, offset + length)
        values = [_UNPACK[kind](reader) for _, kind in cls.fields]
        if reader.offset != reader.end:
            raise ValueError(f"operation {len(operations)} has trailing bytes")
        offset = reader.end
        operations.append(cls(*values).at(Phase(phase)))
    if len(operations) != count:
        raise ValueError(f"{len(operations)} operations where the header says {count}")
    return operations, flags


class _Reader:
    """Reads fields off one payload and never past its end."""

    def __init__(self, data: bytes, offset: int, end: int) -> None:
        self.data = data
        self.offset = offset
        self.end = end

    def take(self, count: int) -> bytes:
        if count > self.end - self.offset:
            raise ValueError("a length does not fit")
        start, self.offset = self.offset, self.offset + count
        return self.data[start : self.offset]

    def integer(self) -> int:
        return int(_I64.unpack(self.take(8))[0])

    def count(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def bytes(self) -> bytes:
        return self.take(self.count())

    def text(self) -> str:
        raw = self.bytes()
        if b"\0" in raw or self.take(1) != b"\0":
            raise ValueError("a string is not terminated")
        return raw.decode(errors="surrogateescape")

    def integers(self) -> tuple[int, ...]:
        return tuple(self.integer() for _ in range(self.bounded(8)))

    def texts(self) -> tuple[str, ...]:
        return tuple(self.text() for _ in range(self.bounded(5)))

    def bounded(self, least: int) -> int:
        """A count of items of at least ``least`` bytes that can still fit."""
        count = self.count()
        if count * least > self.end - self.offset:
            raise ValueError("a count does not fit")
        return count


def _pack_text(value: str) -> bytes:
    raw = value.encode(errors="surrogateescape")
    if b"\0" in raw:
        raise InvalidError(f"cannot encode {value!r}: it holds a NUL byte")
    return _U32.pack(len(raw)) + raw + b"\0"


def _pack_bytes(value: bytes) -> bytes:
    return _U32.pack(len(value)) + value


def _pack_integers(value: tuple[int, ...]) -> bytes:
    return _U32.pack(len(value)) + b"".join(map(_I64.pack, value))


def _pack_texts(value: tuple[str, ...]) -> bytes:
    return _U32.pack(len(value)) + b"".join(map(_pack_text, value))


_PACK = {
    "int": _I64.pack,
    "str": _pack_text,
    "bytes": _pack_bytes,
    "tuple[int, ...]": _pack_integers,
    "tuple[str, ...]": _pack_texts,
}
_UNPACK = {
    "int": _Reader.integer,
    "str": _Reader.text,
    "bytes": _Reader.bytes,
    "tuple[int, ...]": _Reader.integers,
    "tuple[str, ...]": _Reader.texts,
}
