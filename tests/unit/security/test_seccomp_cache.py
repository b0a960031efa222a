"""The kept program: used when good, made again when not."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from ctr.security import seccomp
from ctr.security.capabilities import ALL, DEFAULT
from ctr.security.seccomp import default_filter
from ctr.security.seccomp.compiler import compile_profile
from ctr.security.seccomp.default import default_profile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "new" / "seccomp"


def kept(cache: Path) -> Path:
    (path,) = cache.iterdir()
    return path


def test_kept_and_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = default_filter(DEFAULT, str(cache))
    assert first.program == compile_profile(default_profile(os.uname().machine, DEFAULT))
    assert first.flags == 4  # SECCOMP_FILTER_FLAG_SPEC_ALLOW
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    monkeypatch.setattr("ctr.security.seccomp.compiler.compile_profile", None)
    assert default_filter(DEFAULT, str(cache)) == first


def test_one_for_each_set(cache: Path) -> None:
    assert default_filter(DEFAULT, str(cache)) != default_filter(ALL, str(cache))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "header"])
def test_damaged(cache: Path, damage: str) -> None:
    good = default_filter(DEFAULT, str(cache))
    path = kept(cache)
    data = bytearray(path.read_bytes())
    match damage:
        case "empty":
            data.clear()
        case "cut":
            del data[-8:]
        case "flipped":
            data[-3] ^= 1
        case _:
            data[0] ^= 1
    path.write_bytes(data)
    assert default_filter(DEFAULT, str(cache)) == good
    assert default_filter(DEFAULT, str(cache)) == good
    assert len(list(cache.iterdir())) == 1


def test_of_another_version(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default_filter(DEFAULT, str(cache))
    before = kept(cache).read_bytes()
    monkeypatch.setattr(seccomp, "_version", lambda: b"later")
    again = default_filter(DEFAULT, str(cache))
    assert kept(cache).read_bytes() != before
    assert kept(cache).read_bytes().endswith(again.program)


def test_not_kept_where_that_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert default_filter(DEFAULT, str(tmp_path / "file" / "cache")).program


def test_without_a_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the current folder is taken for a filter."""
    good = default_filter(DEFAULT, str(cache))
    monkeypatch.chdir(cache)
    kept(cache).write_bytes(b"x")
    assert default_filter(DEFAULT, "") == good
    assert kept(cache).read_bytes() == b"x"
