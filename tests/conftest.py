"""Environments for the tests of what users install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_NOT_COPIED = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "*.egg-info", "ctr-launcher"
)

_ISOLATED = """
import os, sys
from ctr.testing.isolation import isolate
isolate()
os.execv(sys.argv[1], sys.argv[1:])
"""


class Environment(NamedTuple):
    """A virtual environment."""

    folder: str

    def pip(self, *arguments: str) -> str:
        return self.run("pip", "--disable-pip-version-check", *arguments)

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment; return its standard output."""
        return _run([f"{self.folder}/bin/{program}", *arguments])

    def ctr(self, state: object, *arguments: str) -> str:
        """Run ctr with its state below ``state``, and with a network of its own."""
        return _run(
            [
                sys.executable,
                "-c",
                _ISOLATED,
                f"{self.folder}/bin/ctr",
                f"--root={state}/root",
                f"--run-root={state}/run",
                *arguments,
            ]
        )


def _run(command: list[str]) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    if command[0] != sys.executable:
        environment.pop("PYTHONPATH", None)
    run = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    return run.stdout


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory):
    def new_environment(name: str) -> Environment:
        folder = str(tmp_path_factory.mktemp(name))
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        return Environment(folder)

    return new_environment


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A copy of the checkout without anything that was built in it."""
    folder = tmp_path_factory.mktemp("checkout") / "ctr"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=_NOT_COPIED)
    return str(folder)
