"""Streams decompressed as they are read: gzip, or nothing; by the first bytes, not by a name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from isal import isal_zlib  # three times as fast as zlib

from ctr.errors import ImageError

if TYPE_CHECKING:
    from ctr.images.ingest import Readable

_CHUNK = 256 << 10
_GZIP = 16 + 15  # window bits for a gzip header, from zlib.h
_ERROR: Any = isal_zlib.error  # a class; its type stub says an instance
_MAGIC = 6  # bytes that tell every format
_REFUSED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
}


class FileStream:
    """What is behind a descriptor, which stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes.  Raises ImageError."""
        try:
            return os.read(self._fd, size)
        except OSError as error:
            raise ImageError(f"cannot read the archive: {error.strerror}") from error


class Peeked:
    """A stream of which ``head`` was already taken."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._rest.read(size)


class Gunzip:
    """A gzip stream of any number of members (RFC 1952), never ahead by more than one read.

    ``read`` raises ImageError for damage, a truncated stream and trailing bytes.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._input = b""
        self._member: Any = None

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes."""
        while True:
            self._input = self._input or self._stream.read(_CHUNK)
            if self._member is None:
                if not self._input:
                    return b""
                self._member = isal_zlib.decompressobj(_GZIP)
            data = self._decompress(size)
            if data:
                return data

    def _decompress(self, size: int) -> bytes:
        member, ended = self._member, not self._input
        try:
            data: bytes = member.decompress(self._input, size)
        except _ERROR as error:
            raise ImageError(f"cannot decompress the gzip stream: {error}") from None
        if member.eof:
            self._input, self._member = member.unused_data, None
        else:
            self._input = member.unconsumed_tail
            if ended and not data:
                raise ImageError("cannot decompress the gzip stream: it is truncated")
        return data


def decompressed(stream: Readable) -> Readable:
    """The stream itself, or its content if it is gzip.  Raises ImageError for other formats."""
    head = b""
    while len(head) < _MAGIC and (more := stream.read(_MAGIC - len(head))):
        head += more
    for magic, name in _REFUSED.items():
        if head.startswith(magic):
            raise ImageError(
                f"cannot decompress the archive: {name} is not supported",
                hint="compress it with gzip, or not at all",
            )
    whole = Peeked(head, stream)
    return Gunzip(whole) if head.startswith(b"\x1f\x8b") else whole
