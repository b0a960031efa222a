"""Wheels made for the tests: they take a minute, and the containers need root."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _as_root():
    assert os.geteuid() == 0, "these tests start containers: run them as root"


@pytest.fixture(scope="session")
def wheels(checkout, new_environment, tmp_path_factory):
    """A folder with a wheel of every distribution, as they would be released."""
    folder = str(tmp_path_factory.mktemp("wheels"))
    environment = new_environment("builder")
    environment.pip("install", "build", "hatchling")
    parts = [checkout, f"{checkout}/core"]
    parts += sorted(f"{checkout}/plugins/{name}" for name in os.listdir(f"{checkout}/plugins"))
    for part in parts:
        environment.run("python", "-m", "build", "--no-isolation", "--outdir", folder, part)
    return folder
