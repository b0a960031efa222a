"""A streaming reader of tar archives that trusts nothing in them.

Understood are ustar, GNU long names and numbers, old GNU sparse files, and POSIX.1-2001
(pax) headers with SCHILY.xattr and GNU sparse format 1.0.  Whatever else an archive holds
is an error, never a guess.  Sources: tar(5) of libarchive, POSIX pax, the GNU tar manual
("Basic Tar Format", "Storing Sparse Files").
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from ctr.images import digest as digests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr.images.ingest import Readable

BLOCK = 512
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO = (b"%d" % n for n in range(7))

_CHUNK = 256 << 10
_MAX_EXTENSION = 1 << 20  # bytes of one pax header or long name
_MAX_FRAGMENTS = 1 << 18  # of one sparse file
_MAX_COMPONENT = 255  # NAME_MAX, from linux/limits.h
_MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "leave it" to chown(2)
_MAX_SECONDS = 1 << 40
_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1  # linux/kdev_t.h
_PLAIN_FILES = (b"0", b"\0", b"7")
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_XATTR = b"SCHILY.xattr."
_ZEROS = bytes(BLOCK)


class MalformedError(ValueError):
    """The archive is damaged, malicious or beyond a limit; the text is the cause alone."""


class Limits(NamedTuple):
    """What an archive may need: unpacked bytes (holes too), headers, a name, time."""

    size: int = 64 << 30
    entries: int = 2_000_000
    name: int = 4095  # bytes
    depth: int = 256  # folders
    seconds: int = 3600


class Entry(NamedTuple):
    """One member of an archive.

    ``name`` has no empty, ``.`` or ``..`` component, and is empty for the root; ``type`` is
    one of this module's seven; ``size`` is the file's, holes included, 0 for others;
    ``fragments`` are ``(offset, length)`` of a sparse file's data, None for a plain file.
    """

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes]
    fragments: list[tuple[int, int]] | None


class TarReader:
    """Iterate over the entries; ``data`` reads the file of the one that is current.

    ``diff_id`` and ``size`` (of the whole stream, whatever follows the archive's end
    included) are set when the iteration has ended.  Raises MalformedError, and what the
    stream raises.
    """

    def __init__(self, stream: Readable, limits: Limits) -> None:
        self._input = _Input(stream, limits)
        self._limits = limits
        self._globals: dict[bytes, bytes] = {}
        self._left = 0  # bytes of the current entry's data that are still to be read
        self._padding = 0
        self._holes = 0
        self._current: Entry | None = None
        self.diff_id = ""
        self.size = 0

    def __iter__(self) -> Iterator[Entry]:
        pax: dict[bytes, bytes] = {}
        long_name = long_target = b""
        for _ in range(self._limits.entries + 1):
            self._input.skip(self._left + self._padding)
            self._left = self._padding = 0
            block = self._input.block()
            if block is None or block == _ZEROS:
                if pax or long_name or long_target:
                    raise MalformedError("the archive ends after an extended header")
                self._end(block)
                return
            header = _parse_header(block)
            if header.type in b"xgLK":
                data = self._extension(header.size)
                if header.type == b"x":
                    pax = _parse_pax(data)
                elif header.type == b"g":
                    self._globals.update(_parse_pax(data))
                elif header.type == b"L":
                    long_name = data.split(b"\0", 1)[0]
                else:
                    long_target = data.split(b"\0", 1)[0]
                continue
            if long_name:
                header = header._replace(name=long_name)
            if long_target:
                header = header._replace(target=long_target)
            self._current = self._entry(header, {**self._globals, **pax}, block)
            yield self._current
            pax, long_name, long_target = {}, b"", b""
        raise MalformedError(f"more than {self._limits.entries} entries")

    def data(self) -> Iterator[tuple[int, memoryview]]:
        """Yield ``(offset, bytes)`` of the current entry; a piece is valid until the next."""
        current = self._current
        if current is None:
            return
        fragments = current.fragments
        for start, length in [(0, self._left)] if fragments is None else fragments:
            offset, left = start, length
            while left:
                piece = self._input.some(left)
                self._left -= len(piece)
                left -= len(piece)
                yield offset, piece
                offset += len(piece)

    def _end(self, block: bytes | None) -> None:
        """One block of zeros was read, or the end of the stream: the rest is padding."""
        if block is not None and self._input.block() not in (_ZEROS, None):
            raise MalformedError("a single block of zeros inside the archive")
        self._input.drain()
        self.diff_id, self.size = f"sha256:{self._input.hash.hexdigest()}", self._input.total

    def _extension(self, size: int) -> bytes:
        if size > _MAX_EXTENSION:
            raise MalformedError(f"an extended header of {size} bytes")
        data = self._input.exactly(size)
        self._input.skip(-size % BLOCK)
        return data

    def _entry(self, header: _Header, pax: dict[bytes, bytes], block: bytes) -> Entry:
        header = _with_pax(header, pax)
        type_ = header.type
        if type_ in _PLAIN_FILES or type_ == b"S":
            # Archives from before 1988 mark a folder by its name.
            type_ = FOLDER if header.name.endswith(b"/") and not header.size else FILE
        elif type_ not in b"123456":
            raise MalformedError(f"an entry of the unknown type {type_!r}")
        fragments, real_size = None, 0
        if type_ == FILE:
            self._left, self._padding, real_size = header.size, -header.size % BLOCK, header.size
            fragments, real_size = self._sparse(header, pax, block)
        xattrs = {key[len(_XATTR) :]: value for key, value in pax.items() if key.startswith(_XATTR)}
        name = self._name(header.name)
        target = header.target
        if type_ == LINK:
            target = self._name(target)
        if type_ == SYMLINK and (b"\0" in target or not 0 < len(target) <= self._limits.name):
            raise MalformedError("a link without a target, or with one that can't be")
        return Entry(
            name,
            type_,
            header.mode,
            header.uid,
            header.gid,
            real_size,
            header.mtime_ns,
            target if type_ in (LINK, SYMLINK) else b"",
            header.major if type_ in (CHARACTER, BLOCK_DEVICE) else 0,
            header.minor if type_ in (CHARACTER, BLOCK_DEVICE) else 0,
            xattrs,
            fragments,
        )

    def _name(self, raw: bytes) -> bytes:
        if not raw or b"\0" in raw:
            raise MalformedError("an entry without a name, or with a NUL in it")
        if len(raw) > self._limits.name:
            raise MalformedError(f"a name of more than {self._limits.name} bytes")
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise MalformedError('a ".." in a name')
        if len(parts) > self._limits.depth:
            raise MalformedError(f"a path of more than {self._limits.depth} folders")
        if parts and max(map(len, parts)) > _MAX_COMPONENT:
            raise MalformedError(f"a file name of more than {_MAX_COMPONENT} bytes")
        return b"/".join(parts)

    def _sparse(
        self, header: _Header, pax: dict[bytes, bytes], block: bytes
    ) -> tuple[list[tuple[int, int]] | None, int]:
        """The fragments and the real size of a file; None and its size for a plain one."""
        if header.type == b"S":
            fragments, real_size = self._old_sparse_map(block)
        elif pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor") == b"0":
            fragments, real_size = self._sparse_map(), _decimal(pax, b"GNU.sparse.realsize")
        elif any(key.startswith(b"GNU.sparse.") for key in pax):
            raise MalformedError("a sparse file of a format that is not supported")
        else:
            return None, header.size
        end = 0
        for offset, length in fragments:
            if offset < end:
                raise MalformedError("a sparse file whose fragments overlap")
            end = offset + length
        if end > real_size or sum(length for _, length in fragments) != self._left:
            raise MalformedError("a sparse file whose fragments do not fit")
        self._holes += real_size - self._left
        if self._holes > self._limits.size:
            raise MalformedError(f"more than {self._limits.size} bytes of holes in files")
        return fragments, real_size

    def _old_sparse_map(self, block: bytes) -> tuple[list[tuple[int, int]], int]:
        real_size = _bounded(_number(block[483:495]), (1 << 63) - 1, "size")
        fragments = _fragments(block, 386, 4)
        more = block[482]
        while more:
            if len(fragments) > _MAX_FRAGMENTS:
                raise MalformedError("a sparse file of too many fragments")
            extension = self._input.exactly(BLOCK)
            fragments += _fragments(extension, 0, 21)
            more = extension[504]
        return fragments, real_size

    def _sparse_map(self) -> list[tuple[int, int]]:
        """Format 1.0: decimal numbers, a line each, in whole blocks before the data."""
        lines = self._lines()
        count = _digits(next(lines))
        if count > _MAX_FRAGMENTS:
            raise MalformedError("a sparse file of too many fragments")
        return [(_digits(next(lines)), _digits(next(lines))) for _ in range(count)]

    def _lines(self) -> Iterator[bytes]:
        """Lines from the start of the data, which is read a block at a time."""
        text = b""
        while self._left >= BLOCK and len(text) < BLOCK:
            text += self._input.exactly(BLOCK)
            self._left -= BLOCK
            *lines, text = text.split(b"\n")
            yield from lines
        raise MalformedError("a sparse file without a complete map")


class _Input:
    """The stream: bounded, hashed, in pieces."""

    def __init__(self, stream: Readable, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._deadline = time.monotonic() + limits.seconds
        self._chunk = memoryview(b"")
        self.hash = digests.hasher()
        self.total = 0

    def _fill(self) -> bool:
        """Get the next chunk; False at the end."""
        chunk = self._stream.read(_CHUNK)
        self.total += len(chunk)
        if self.total > self._limits.size:
            raise MalformedError(f"more than {self._limits.size} bytes unpacked")
        if time.monotonic() > self._deadline:
            raise MalformedError(f"it took more than {self._limits.seconds} seconds")
        self.hash.update(chunk)
        self._chunk = memoryview(chunk)
        return bool(chunk)

    def some(self, size: int) -> memoryview:
        """At least one byte, at most ``size``."""
        if not self._chunk and not self._fill():
            raise MalformedError("the archive is truncated")
        piece, self._chunk = self._chunk[:size], self._chunk[size:]
        return piece

    def exactly(self, size: int) -> bytes:
        parts = []
        while size:
            parts.append(self.some(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.some(size))

    def block(self) -> bytes | None:
        """The next block; None at the end of the stream."""
        if not self._chunk and not self._fill():
            return None
        return self.exactly(BLOCK)

    def drain(self) -> None:
        while self._fill():
            pass


class _Header(NamedTuple):
    """The fields of a header block as far as they are used."""

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes
    major: int
    minor: int


def _parse_header(block: bytes) -> _Header:
    # fmt: off
    (name, mode, uid, gid, size, mtime, checksum, type_, target, magic, _version, _user, _group,
     major, minor, prefix) = _HEADER.unpack(block)
    # fmt: on
    if not _is_checksum(block, checksum):
        raise MalformedError("a header with a wrong checksum: this is no tar, or a damaged one")
    name, target = name.split(b"\0", 1)[0], target.split(b"\0", 1)[0]
    if magic == b"ustar\0" and prefix[0]:  # GNU's magic has a space, and other fields there
        name = prefix.split(b"\0", 1)[0] + b"/" + name
    device = type_ in (CHARACTER, BLOCK_DEVICE)
    return _Header(
        name,
        type_,
        _number(mode) & 0o7777,
        _bounded(_number(uid), _MAX_ID, "user ID"),
        _bounded(_number(gid), _MAX_ID, "group ID"),
        _bounded(_number(size), (1 << 63) - 1, "size"),
        _bounded(_number(mtime), _MAX_SECONDS, "time", -_MAX_SECONDS) * 1_000_000_000,
        target,
        _bounded(_number(major), _MAX_MAJOR, "device number") if device else 0,
        _bounded(_number(minor), _MAX_MINOR, "device number") if device else 0,
    )


def _is_checksum(block: bytes, field: bytes) -> bool:
    """The sum of the bytes, those of the checksum as spaces; Sun's tar added signed ones."""
    try:
        expected = _number(field) - 8 * 0x20
    except MalformedError:
        return False
    rest = block[:148] + block[156:]
    if expected == sum(rest):
        return True
    return expected == sum(byte - 256 if byte > 127 else byte for byte in rest)


def _with_pax(header: _Header, pax: dict[bytes, bytes]) -> _Header:
    """The header with what an extended header says instead; an empty value says nothing."""
    changes: dict[str, bytes | int] = {}
    for key, value in pax.items():
        if not value:
            continue
        if key == b"GNU.sparse.name" or (key == b"path" and b"GNU.sparse.name" not in pax):
            changes["name"] = value
        elif key == b"linkpath":
            changes["target"] = value
        elif key == b"size":
            changes["size"] = _bounded(_digits(value), (1 << 63) - 1, "size")
        elif key in (b"uid", b"gid"):
            changes[key.decode()] = _bounded(_digits(value), _MAX_ID, "user or group ID")
        elif key == b"mtime":
            changes["mtime_ns"] = _nanoseconds(value)
    return header._replace(**changes) if changes else header  # type: ignore[arg-type]


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records: ``LENGTH KEY=VALUE`` and a newline, LENGTH being the whole record's."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        end = at + _digits(data[at : max(at, space)])
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n":
            raise MalformedError("a damaged pax header")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not key or not equals:
            raise MalformedError("a damaged pax header")
        records[key] = value
        at = end
    return records


def _fragments(block: bytes, start: int, count: int) -> list[tuple[int, int]]:
    pairs = []
    for at in range(start, start + 24 * count, 24):
        if not block[at]:
            break
        pairs.append((_number(block[at : at + 12]), _number(block[at + 12 : at + 24])))
    if any(number < 0 for pair in pairs for number in pair):
        raise MalformedError("a sparse file with a negative number")
    return pairs


def _number(field: bytes) -> int:
    """A number in octal, or GNU's base 256 when the top bit is set (two's complement)."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            return int.from_bytes(field, "big", signed=True)
        return int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    digits = field.strip(b" \0").split(b"\0", 1)[0]
    if digits.strip(b"01234567"):
        raise MalformedError(f"a header with {field!r} where a number belongs")
    return int(digits or b"0", 8)


def _digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise MalformedError(f"{text[:30]!r} where a number belongs")
    return int(text)


def _decimal(pax: dict[bytes, bytes], key: bytes) -> int:
    return _bounded(_digits(pax.get(key, b"")), (1 << 63) - 1, "size")


def _nanoseconds(text: bytes) -> int:
    """Seconds since the epoch as ``[-]DIGITS[.DIGITS]``."""
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    seconds = _bounded(_digits(whole), _MAX_SECONDS, "time")
    nanoseconds = seconds * 1_000_000_000 + _digits(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if text.startswith(b"-") else nanoseconds


def _bounded(value: int, most: int, what: str, least: int = 0) -> int:
    if not least <= value <= most:
        raise MalformedError(f"the {what} {value}")
    return value
