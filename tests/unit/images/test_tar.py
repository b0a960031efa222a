"""The tar reader: what it understands, and that it survives everything else."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import struct
import subprocess
import tarfile
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.errors import ImageError
from ctr.images.compression import Gunzip, decompressed
from ctr.images.tar import Entry, Limits, MalformedError, TarReader

if TYPE_CHECKING:
    from pathlib import Path

ID = 1 << 21  # more than seven octal digits hold


def read(data: bytes, limits: Limits | None = None) -> list[tuple[Entry, bytes]]:
    """Every entry with its content, holes as zeros; checks the digest of the stream."""
    reader = TarReader(io.BytesIO(data), limits or Limits())
    found = []
    for entry in reader:
        content = bytearray(min(entry.size, 1 << 24))
        for offset, piece in reader.data():
            content[offset : offset + len(piece)] = piece
        found.append((entry, bytes(content)))
    assert reader.size == len(data)
    assert reader.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    return found


def info(name: str, **values: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(made, key, value)
    return made


def tar(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for member in members:
            if member.isreg() and not member.size:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return buffer.getvalue()


def header(name: bytes = b"a", type_: bytes = b"0", size: bytes = b"0", **fields: bytes) -> bytes:
    """One header block with a right checksum and whatever else is asked for."""
    values = {"mode": b"644", "uid": b"0", "gid": b"0", "mtime": b"0", "target": b"",
              "major": b"", "minor": b"", "prefix": b""} | fields  # fmt: skip
    block = bytearray(
        struct.pack(
            "100s8s8s8s12s12s8s1s100s8s64s8s8s155s12x",
            name, values["mode"], values["uid"], values["gid"], size, values["mtime"], b" " * 8,
            type_, values["target"], b"ustar\x0000", b"", values["major"], values["minor"],
            values["prefix"],
        )
    )  # fmt: skip
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(*records: tuple[bytes, bytes]) -> bytes:
    data = b""
    for key, value in records:
        length = len(key) + len(value) + 3
        length += len(str(length + len(str(length))))
        data += b"%d %s=%s\n" % (length, key, value)
    return header(b"pax", b"x", b"%o" % len(data)) + padded(data)


END = bytes(1024)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_type(form: int) -> None:
    data = tar(
        info("d/", type=tarfile.DIRTYPE, mode=0o1777, uid=1, gid=2, mtime=3),
        info("./d/file", mode=0o4755),
        info("/d/hard", type=tarfile.LNKTYPE, linkname="./d/file"),
        info("d/soft", type=tarfile.SYMTYPE, linkname="../../etc"),
        info("d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        info("d/disk", type=tarfile.BLKTYPE, devmajor=8, devminor=300),
        info("d/fifo", type=tarfile.FIFOTYPE),
        form=form,
    )
    found = read(data)
    assert [(entry.name, entry.type, entry.target) for entry, _ in found] == [
        (b"d", b"5", b""),
        (b"d/file", b"0", b""),
        (b"d/hard", b"1", b"d/file"),
        (b"d/soft", b"2", b"../../etc"),
        (b"d/null", b"3", b""),
        (b"d/disk", b"4", b""),
        (b"d/fifo", b"6", b""),
    ]
    folder, file = found[0][0], found[1]
    assert (folder.mode, folder.uid, folder.gid, folder.mtime_ns) == (0o1777, 1, 2, 3 * 10**9)
    assert (file[0].mode, file[0].size, file[1]) == (0o4755, 1, b"x")
    assert (found[4][0].major, found[4][0].minor) == (1, 3)
    assert (found[5][0].major, found[5][0].minor) == (8, 300)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_large_numbers(form: int) -> None:
    name, target = "d" * 100 + "/" + "é" * 90, "t" * 200
    found = read(
        tar(
            info(name, type=tarfile.SYMTYPE, linkname=target, uid=ID, gid=ID + 1, mtime=1 << 34),
            info("next"),
            form=form,
        )
    )
    entry = found[0][0]
    assert (entry.name, entry.target) == (name.encode(), target.encode())
    assert (entry.uid, entry.gid, entry.mtime_ns) == (ID, ID + 1, (1 << 34) * 10**9)
    assert found[1][0].name == b"next"


def test_ustar_prefix() -> None:
    name = "d" * 90 + "/" + "f" * 90
    assert read(tar(info(name), form=tarfile.USTAR_FORMAT))[0][0].name == name.encode()


def test_pax_values() -> None:
    entry = read(
        pax(
            (b"mtime", b"-1.5"),
            (b"SCHILY.xattr.user.a", b"\0\xff\n="),
            (b"uid", b"4294967294"),
            (b"comment", b"whatever"),
            (b"path", b"b/c"),
        )
        + header(b"a", uid=b"7")
        + END
    )[0][0]
    assert (entry.name, entry.uid, entry.mtime_ns) == (b"b/c", 4294967294, -1_500_000_000)
    assert entry.xattrs == {b"user.a": b"\0\xff\n="}


def test_global_pax_header_lasts_and_is_overruled() -> None:
    data = b"9 uid=12\n"
    everywhere = header(b"g", b"g", b"11") + padded(data)
    found = read(
        everywhere + header(b"a") + pax((b"uid", b"3")) + header(b"b") + header(b"c") + END
    )
    assert [entry.uid for entry, _ in found] == [12, 3, 12]


def test_a_folder_of_old_by_its_name() -> None:
    assert read(header(b"d/", b"\0") + END)[0][0].type == b"5"


def test_signed_checksum() -> None:
    block = bytearray(header("é".encode()))
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 256
    block[148:156] = b"%06o\0 " % signed
    assert read(bytes(block) + END)[0][0].name == "é".encode()


def test_what_follows_the_end_is_hashed_and_ignored() -> None:
    assert len(read(header() + END + b"\xff" * 700)) == 1


def test_no_end_marker() -> None:
    assert len(read(header())) == 1


@pytest.mark.parametrize("form", ["--format=oldgnu", "--format=gnu", "--format=posix"])
@pytest.mark.parametrize("fragments", [1, 5, 60])
def test_sparse_as_gnu_tar_writes_it(tmp_path: Path, form: str, fragments: int) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        for number in range(fragments):
            file.seek(number * 65536 + 16384)
            file.write(b"data %d" % number)
        file.truncate(fragments * 65536 + 5)
    (tmp_path / "after").write_bytes(b"after")
    command = ["tar", "-c", "--sparse", form, "-C", str(tmp_path), "sparse", "after"]
    data = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    (sparse, content), (after, text) = read(data)
    assert sparse.fragments is not None
    assert (sparse.name, sparse.size) == (b"sparse", fragments * 65536 + 5)
    assert content == (tmp_path / "sparse").read_bytes()
    assert (after.name, text) == (b"after", b"after")


SPARSE = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"s"))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(header(b""), id="no name"),
        pytest.param(header(b"a/../b"), id="dot dot"),
        pytest.param(header(b".."), id="only dot dot"),
        pytest.param(pax((b"path", b"a\0b")) + header(), id="nul in name"),
        pytest.param(pax((b"path", b"n" * 300)) + header(), id="long component"),
        pytest.param(pax((b"path", b"n/" * 2100)) + header(), id="long name"),
        pytest.param(pax((b"path", b"d/" * 1000)) + header(), id="1000 deep"),
        pytest.param(pax((b"path", b"d/" * 10_000)) + header(), id="10000 deep"),
        pytest.param(header(type_=b"2"), id="symlink to nothing"),
        pytest.param(pax((b"linkpath", b"a\0")) + header(type_=b"2"), id="nul in target"),
        pytest.param(header(type_=b"1", target=b"../x"), id="hard link outside"),
        pytest.param(header(type_=b"1"), id="hard link to nothing"),
        pytest.param(header(type_=b"V"), id="volume header"),
        pytest.param(header(type_=b"M"), id="multi-volume"),
        pytest.param(header(type_=b"\xff"), id="unknown type"),
        pytest.param(header(mode=b"9"), id="no octal"),
        pytest.param(header(mode=b"-1"), id="negative octal"),
        pytest.param(header(mode=b"1_1"), id="underscore"),
        pytest.param(header(uid=b"\xff" * 8), id="negative uid"),
        pytest.param(header(uid=b"\x80\0\0\1\0\0\0\0"), id="huge uid"),
        pytest.param(header(gid=b"\x80\0\0\0\xff\xff\xff\xff"), id="gid -1 of 32 bits"),
        pytest.param(header(size=b"\xff" * 12), id="negative size"),
        pytest.param(header(size=b"\x80" + b"\xff" * 11), id="huge size"),
        pytest.param(header(size=b"\x80" + b"\0" * 4 + b"\x7f" + b"\xff" * 6), id="8 EiB"),
        pytest.param(header(size=b"7777"), id="truncated content"),
        pytest.param(header(mtime=b"\x80" + b"\xff" * 11), id="huge time"),
        pytest.param(header(type_=b"3", major=b"777777"), id="huge device number"),
        pytest.param(header(type_=b"3", major=b"\xff" * 8), id="negative device number"),
        pytest.param(header()[:300], id="truncated header"),
        pytest.param(header()[:148] + b"0000000\0" + header()[156:], id="wrong checksum"),
        pytest.param(bytes(512) + header(), id="zeros inside"),
        pytest.param(header(type_=b"x", size=b"7777777") + bytes(1 << 21), id="huge pax header"),
        pytest.param(header(type_=b"L", size=b"77777777777"), id="huge long name"),
        pytest.param(header(type_=b"x", size=b"10") + padded(b"8 uid=12"), id="pax no newline"),
        pytest.param(header(type_=b"x", size=b"10") + padded(b"99 uid=1"), id="pax too long"),
        pytest.param(header(type_=b"x", size=b"10") + padded(b"0 uid=1\n"), id="pax zero"),
        pytest.param(header(type_=b"x", size=b"10") + padded(b"-8 ui=1\n"), id="pax negative"),
        pytest.param(header(type_=b"x", size=b"10") + padded(b"8 uidx1\n"), id="pax no ="),
        pytest.param(header(type_=b"x", size=b"10") + padded(b"uid=1234"), id="pax no length"),
        pytest.param(
            header(type_=b"x", size=b"20") + padded(b"8 uid=1\nkey=value"), id="pax second damaged"
        ),
        pytest.param(pax((b"uid", b"x")) + header(), id="pax uid"),
        pytest.param(pax((b"size", b"1e3")) + header(), id="pax size"),
        pytest.param(pax((b"size", b"9" * 30)) + header(), id="pax huge size"),
        pytest.param(pax((b"mtime", b"nan")) + header(), id="pax nan"),
        pytest.param(pax((b"mtime", b"9" * 18)) + header(), id="pax huge time"),
        pytest.param(pax((b"mtime", b"")) + pax((b"x", b"y")), id="pax at the end"),
        pytest.param(pax((b"GNU.sparse.map", b"0,1")) + header(), id="sparse 0.1"),
        pytest.param(pax(*SPARSE) + header(), id="sparse without a size"),
        pytest.param(
            pax(*SPARSE, (b"GNU.sparse.realsize", b"10"))
            + header(size=b"1000") + padded(b"99999999\n"), id="sparse many",
        ),
        pytest.param(
            pax(*SPARSE, (b"GNU.sparse.realsize", b"10")) + header(size=b"1000") + b"1" * 512,
            id="sparse endless number",
        ),
        pytest.param(
            pax(*SPARSE, (b"GNU.sparse.realsize", b"10"))
            + header(size=b"1005") + padded(b"2\n0\n3\n2\n2\n") + padded(b"12345"),
            id="sparse overlap",
        ),
        pytest.param(
            pax(*SPARSE, (b"GNU.sparse.realsize", b"4"))
            + header(size=b"1005") + padded(b"1\n0\n5\n") + padded(b"12345"),
            id="sparse beyond its size",
        ),
        pytest.param(
            pax(*SPARSE, (b"GNU.sparse.realsize", b"9" * 18)) + header(size=b"1000")
            + padded(b"0\n"), id="sparse of an exbibyte",
        ),
    ],
)  # fmt: skip
def test_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read(data + END)


def test_sparse_1_0_by_hand() -> None:
    data = (
        pax(*SPARSE, (b"GNU.sparse.realsize", b"20"))
        + header(b"GNUSparseFile.0/s", size=b"1005")
        + padded(b"2\n1\n3\n10\n2\n")
        + padded(b"12345")
        + END
    )
    ((entry, content),) = read(data)
    assert (entry.name, entry.fragments) == (b"s", [(1, 3), (10, 2)])
    assert content == b"\x00123" + bytes(6) + b"45" + bytes(8)


def test_limits() -> None:
    with pytest.raises(MalformedError, match="more than 2 entries"):
        read(header() * 3 + END, Limits(entries=2))
    with pytest.raises(MalformedError, match="more than 1024 bytes unpacked"):
        read(header() * 3 + END, Limits(size=1024))
    with pytest.raises(MalformedError, match="seconds"):
        read(header() + END, Limits(seconds=-1))
    assert len(read(header(b"a/b/c") + END, Limits(depth=3))) == 1
    with pytest.raises(MalformedError, match="2 folders"):
        read(header(b"a/b/c") + END, Limits(depth=2))


def test_gzip_bomb_stops_at_the_limit() -> None:
    bomb = gzip.compress(header(size=b"77777777777") + bytes(64 << 20), 9)
    stream = decompressed(io.BytesIO(bomb))
    with pytest.raises(MalformedError, match="more than 1048576 bytes unpacked"):
        list(TarReader(stream, Limits(size=1 << 20)))


def test_gzip_members_and_magic() -> None:
    data = os.urandom(700_000)
    stream = decompressed(io.BytesIO(gzip.compress(data[:9]) + gzip.compress(data[9:])))
    assert isinstance(stream, Gunzip)
    out = b""
    while piece := stream.read(1000):
        assert len(piece) <= 1000
        out += piece
    assert out == data
    assert decompressed(io.BytesIO(b"ab")).read(9) == b"ab"


def drain(data: bytes) -> None:
    stream = decompressed(io.BytesIO(data))
    while stream.read(100):
        pass


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"x" * 1000)[:-1],
        gzip.compress(b"x" * 1000)[:-8],
        gzip.compress(b"x" * 1000)[:5],
        gzip.compress(b"x" * 1000) + b"trailing",
        gzip.compress(b"x" * 1000)[:-6] + b"\0\0\0\0\0\0",
        b"\x1f\x8bnonsense",
        b"\x28\xb5\x2f\xfd1234",
        b"BZh91AY",
        b"\xfd7zXZ\0 ",
    ],
)
def test_bad_compression(data: bytes) -> None:
    with pytest.raises(ImageError, match="cannot decompress"):
        drain(data)


_GOOD = [
    tar(info("a/b"), info("c", type=tarfile.SYMTYPE, linkname="d" * 150), info("é" * 80)),
    tar(info("x" * 120), info("y", uid=ID), form=tarfile.GNU_FORMAT),
    pax(*SPARSE, (b"GNU.sparse.realsize", b"20"))
    + header(size=b"1005")
    + padded(b"2\n1\n3\n10\n2\n")
    + padded(b"12345")
    + END,
]


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(_GOOD)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, min(len(data), 4096) - 1))
        piece = draw(st.binary(max_size=12))
        data[at : at + draw(st.sampled_from([0, len(piece)]))] = piece
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    if draw(st.booleans()):  # so that mutations get past the checksums
        for at in range(0, len(data) - 511, 512):
            block = data[at : at + 512]
            total = sum(block[:148]) + sum(block[156:]) + 256
            data[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(data)


@given(_mutated())
def test_damage_is_only_ever_a_malformed_error(data: bytes) -> None:
    try:
        found = read(data)
    except MalformedError:
        return
    for entry, _ in found:
        assert not {b"..", b"."}.intersection(entry.name.split(b"/"))
        assert b"\0" not in entry.name + entry.target
        assert entry.size >= 0


@given(st.binary(max_size=3000))
def test_damaged_gzip_is_only_ever_an_image_error(data: bytes) -> None:
    whole = zlib.compress(data, wbits=31) if len(data) % 2 else data
    cut = whole[: len(whole) - len(data) % 5]
    with contextlib.suppress(ImageError):
        drain(b"\x1f\x8b" + cut[2:])
