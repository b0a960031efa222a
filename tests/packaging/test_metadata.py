"""The distributions agree with each other."""

from __future__ import annotations

import os
import tomllib

import pytest

import ctr

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLUGINS = sorted(os.listdir(f"{ROOT}/plugins"))


def project(folder):
    with open(f"{ROOT}/{folder}/pyproject.toml", "rb") as file:
        return tomllib.load(file)


@pytest.fixture(params=[".", "core", *(f"plugins/{name}" for name in PLUGINS)])
def folder(request):
    return request.param


def test_one_version(folder):
    assert project(folder)["project"]["version"] == ctr.__version__


def test_one_python_and_one_licence(folder):
    metadata = project(folder)["project"]
    assert metadata["requires-python"] == ">=3.11"
    assert metadata["license"] == "Apache-2.0"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_names_of_a_plugin_follow_from_its_folder(plugin):
    metadata = project(f"plugins/{plugin}")["project"]
    dashes = plugin.replace("_", "-")
    assert metadata["name"] == f"ctr-{dashes}"
    assert metadata["entry-points"] == {"ctr": {dashes: f"ctr_{plugin}"}}
    assert os.path.exists(f"{ROOT}/plugins/{plugin}/src/ctr_{plugin}/py.typed")
    assert os.path.exists(f"{ROOT}/plugins/{plugin}/README.md")


def test_the_root_installs_every_part():
    with open(f"{ROOT}/build_backend.py") as file:
        source = file.read()
    for folder in ["core", *(f"plugins/{plugin}" for plugin in PLUGINS)]:
        assert f'"{folder}": "{project(folder)["project"]["name"]}"' in source
