"""What a user types: the ``ctr`` command on a root of the tests' own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from . import hostile

if TYPE_CHECKING:
    from collections.abc import Iterator


class Result(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


class Ctr:
    """Runs ``ctr`` with its own root; the matrix's choice of drivers is in the environment."""

    def __init__(self, folder: str) -> None:
        self.root = os.path.join(folder, "root")
        self.run_root = os.path.join(folder, "run")

    def argv(self, *args: str) -> list[str]:
        roots = ["--root", self.root, "--run-root", self.run_root]
        return [sys.executable, "-m", "ctr", *roots, *args]

    def __call__(self, *args: str, stdin: str | None = None, **extra: str) -> Result:
        """Run a command to its end."""
        done = subprocess.run(
            self.argv(*args),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **extra},
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def run(self, *args: str, stdin: str | None = None, **extra: str) -> Result:
        """``ctr run --rm``, without a network unless one is named."""
        network = [] if any(a.startswith("--network") for a in args) else ["--network", NETWORK]
        return self("run", "--rm", *network, *args, stdin=stdin, **extra)

    def spawn(self, *args: str, **popen: object) -> subprocess.Popen[bytes]:
        """Start a command in the background."""
        process: subprocess.Popen[bytes] = subprocess.Popen(
            self.argv(*args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **popen,  # type: ignore[call-overload]
        )
        return process


#: The matrix's network mode.
NETWORK = os.environ.get("CTR_TEST_NETWORK", "none")


@pytest.fixture(scope="session")
def ctr_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctr]:
    """One root for the session, with the image made, and the network unless the matrix has another."""
    ctr = Ctr(str(tmp_path_factory.mktemp("ctr")))
    result = ctr.run("base", "true")
    assert result == (0, "", ""), result
    if os.environ.get("CTR_TEST_NETWORK", "bridge") == "bridge":
        assert ctr("run", "--rm", "--network", "bridge", "base", "true").status == 0
    yield ctr
    left = ctr("ps", "-a", "-q").out.split()
    if left:
        ctr("rm", "-f", "-v", *left)
    assert not left, f"containers left: {left}"


@pytest.fixture
def ctr(ctr_root: Ctr) -> Ctr:
    """The session's root."""
    return ctr_root


@pytest.fixture
def fresh(tmp_path) -> Ctr:
    """A root where nothing has happened yet."""
    return Ctr(str(tmp_path))


class Arena(Ctr):
    """A root for attacks, with the image "tools" and others on top of it."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder
        self.probe = hostile.compile_probe(folder)
        self.tools = hostile.tar(*hostile.tools(self.probe))
        self.count = 0
        self.load(name="tools")

    def load(self, *members: hostile.Member, name: str = "", **config: object) -> str:
        """Make an image: the tools, and a layer on top of them; return its name."""
        self.count += 1
        name = name or f"hostile{self.count}"
        file = os.path.join(self.folder, "image.tar")
        layers = [self.tools, *([hostile.tar(*members)] if members else [])]
        with open(file, "wb") as archive:
            archive.write(hostile.archive(config, *layers, name=name))
        result = self("image", "load", "-q", file)
        assert result == (0, "", ""), result
        return name


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """One root for the attacks of a session."""
    arena = Arena(str(tmp_path_factory.mktemp("arena")))
    yield arena
    assert arena("ps", "-a", "-q").out == ""
