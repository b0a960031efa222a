from __future__ import annotations

import os
import tomllib

import pytest

from ctr.errors import ConflictError, InvalidError, StateError
from ctr.plugin_template import generate


def test_every_name_is_the_new_one(tmp_path):
    project = generate("plain", str(tmp_path))
    assert project == f"{tmp_path}/ctr-storage-plain"
    files = []
    for folder, _, names in os.walk(project):
        for name in names:
            path = os.path.join(folder, name)
            files.append(os.path.relpath(path, project))
            with open(path) as file:
                assert "example" not in file.read().lower()
    assert sorted(files) == [
        "README.md",
        "pyproject.toml",
        "src/ctr_storage_plain/__init__.py",
        "src/ctr_storage_plain/driver.py",
        "src/ctr_storage_plain/py.typed",
        "tests/test_conformance.py",
    ]
    with open(f"{project}/pyproject.toml", "rb") as file:
        metadata = tomllib.load(file)["project"]
    assert metadata["entry-points"] == {"ctr": {"storage-plain": "ctr_storage_plain"}}
    assert os.listdir(tmp_path) == ["ctr-storage-plain"]


@pytest.mark.parametrize("name", ["", "Plain", "a-b", "a_b", "../x", "1a", "a" * 32, "example"])
def test_a_bad_name(tmp_path, name):
    with pytest.raises(InvalidError):
        generate(name, str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_nothing_is_overwritten(tmp_path):
    os.symlink("nowhere", tmp_path / "ctr-storage-plain")
    with pytest.raises(ConflictError):
        generate("plain", str(tmp_path))


def test_a_place_that_cannot_be_written():
    with pytest.raises(StateError, match="cannot make /proc/"):
        generate("plain", "/proc")
