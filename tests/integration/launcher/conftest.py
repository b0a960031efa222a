"""What the launchers' tests share: a root folder and a launcher compiled from the sources."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from ctr import encoding
from ctr.launcher import build, native

from . import harness

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ctr.program import Operation


@pytest.fixture(scope="session")
def compiled_launcher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The launcher as it is in the sources, whatever the package was built with."""
    output = os.fspath(tmp_path_factory.mktemp("launcher") / "ctr-launcher")
    build.build(output)
    return output


@pytest.fixture
def compiled(compiled_launcher: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """ctr.launcher.native with that launcher."""
    monkeypatch.setattr(native, "LAUNCHER", compiled_launcher)
    return native


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A root folder; programs are there once ``harness.container`` has bound them."""
    folder = os.fspath(tmp_path_factory.mktemp("root"))
    os.chmod(folder, 0o755)
    harness.make_root(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A container's run folder."""
    return os.fspath(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(compiled: types.ModuleType, root: str, run_dir: str) -> Callable[..., harness.Result]:
    """Run a command in ``harness.container``, by the compiled launcher, to its end."""

    def run(
        *argv: str, stdin: bytes | None = None, trace: bool = False, **parts: Sequence[Operation]
    ) -> harness.Result:
        operations = harness.container(root, *argv, **parts)  # type: ignore[arg-type]
        flags = encoding.TRACE if trace else 0
        return harness.launch(compiled, operations, run_dir, stdin=stdin, flags=flags)

    return run


@pytest.fixture
def begin(compiled: types.ModuleType, root: str, run_dir: str) -> Callable[..., harness.Launch]:
    """Spawn a supervisor for such a command; the caller drives it."""

    def begin(
        *argv: str,
        with_stdin: bool = False,
        cleaner: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        **parts: Sequence[Operation],
    ) -> harness.Launch:
        program = encoding.encode(harness.container(root, *argv, **parts))  # type: ignore[arg-type]
        return harness.Launch(
            compiled, program, run_dir, with_stdin=with_stdin, cleaner=cleaner, env=env
        )

    return begin
