"""``ctr image`` as it is typed."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from ctr.cli.main import run as main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    #: Runs a command; returns its exit status, standard output and standard error.
    Ctr = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ctr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Ctr:
    def run(*arguments: object) -> tuple[int, str, str]:
        root = ["--root", str(tmp_path / "root"), "--run-root", str(tmp_path / "run")]
        status = main([*root, "image", *map(str, arguments)])
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "hello").write_bytes(b"world")
    return tmp_path / "folder"


def test_life_of_an_image(ctr: Ctr, folder: Path, tmp_path: Path) -> None:
    assert ctr("ls") == (0, "REPOSITORY   TAG   IMAGE ID   CREATED   SIZE\n", "")
    status, out, _ = ctr("import", folder, "mine:1")
    identity = out.strip()
    assert status == 0
    assert re.fullmatch("sha256:[0-9a-f]{64}", identity)
    assert ctr("tag", "mine:1", "quay.io/me/other") == (0, "", "")
    lines = ctr("ls")[1].splitlines()
    assert lines[0] == "REPOSITORY         TAG      IMAGE ID       CREATED                  SIZE"
    assert re.fullmatch(rf"mine +1 +{identity[7:19]} +\S.* ago +10\.24kB", lines[1])
    assert lines[2].startswith("quay.io/me/other   latest   ")
    assert ctr("ls", "-q", "--no-trunc", "mine")[1] == f"{identity}\n"
    (record,) = json.loads(ctr("ls", "--format", "json", "mine:1")[1])
    assert (record["Repository"], record["Tag"]) == ("mine", "1")
    assert record["Digest"] in ctr("ls", "--digests")[1]
    (document,) = json.loads(ctr("inspect", identity[7:15])[1])
    assert document["RepoTags"] == ["mine:1", "quay.io/me/other:latest"]
    assert document["Id"] == identity
    os.rename(tmp_path / "root" / "content", tmp_path / "saved")
    assert ctr("ls", "-q")[1] == ""
    assert ctr("load", "-i", tmp_path / "saved") == (
        0, "Loaded image: mine:1\nLoaded image: quay.io/me/other:latest\n", ""
    )  # fmt: skip
    assert ctr("rm", "mine:1") == (0, "Untagged: mine:1\n", "")
    assert ctr("rm", identity[7:]) == (
        0, f"Untagged: quay.io/me/other:latest\nDeleted: {identity}\n", ""
    )  # fmt: skip
    assert os.listdir(tmp_path / "root" / "content" / "blobs" / "sha256") == []


def test_an_image_that_loses_its_name(ctr: Ctr, folder: Path) -> None:
    old = ctr("import", folder, "mine")[1].strip()
    (folder / "more").write_bytes(b"more")
    ctr("import", folder, "mine")
    assert f"<none>       <none>   {old[7:19]}" in ctr("ls")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rm", "nope"], "cannot find image 'nope'"),
        (["inspect", "nope"], "cannot find image 'nope'"),
        (["tag", "nope", "a"], "cannot find image 'nope'"),
        (["import", "/nope", "a"], "cannot read '/nope': No such file or directory"),
        (["import", "/etc/passwd", "a"], "cannot import '/etc/passwd': "),
        (["import", "/etc", "A"], "cannot use 'A' as an image name: "),
        (["import", "/etc", f"a@sha256:{'0' * 64}"], "a digest is not ours to choose"),
        (["load", "/etc/passwd"], "cannot load '/etc/passwd': "),
        (["load", "-i", "a", "b"], "cannot load two files"),
        (["load", "/dev/null"], "cannot read '/dev/null': it is a terminal or another device"),
    ],
)
def test_errors_are_one_line_and_a_hint(ctr: Ctr, arguments: list[str], message: str) -> None:
    status, out, err = ctr(*arguments)
    first, *hints = err.splitlines()
    assert (status, out) == (1, "")
    assert first.startswith("ctr: ")
    assert message in first
    assert all(line.startswith("hint: ") for line in hints)
    assert len(hints) <= 1


def test_a_damaged_image_is_told_and_can_be_removed(ctr: Ctr, folder: Path, tmp_path: Path) -> None:
    ctr("import", folder, "good")
    (folder / "more").write_bytes(b"more")
    ctr("import", folder, "bad")
    (document,) = json.loads(ctr("inspect", "bad")[1])
    digest = document["RepoDigests"][0].split("@sha256:")[1]
    (tmp_path / "root" / "content" / "blobs" / "sha256" / digest).write_bytes(b"{}")
    status, out, err = ctr("ls")
    assert status == 0
    assert "good" in out
    assert "bad" not in out
    assert err.startswith("ctr: warning: image bad:latest is left out: ")
    assert ctr("inspect", "bad")[2].endswith(
        "hint: `ctr image rm bad:latest` and bring it in again\n"
    )
    assert ctr("rm", "bad") == (0, f"Untagged: bad:latest\nDeleted: sha256:{digest}\n", "")
    assert ctr("ls")[2] == ""
