"""Compiling and sealing the compiled launcher."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ctr.launcher import build, native, protocol

COMPILERS = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
FOLDER = Path(build.__file__).parent


@pytest.mark.parametrize("sanitize", [False, True])
@pytest.mark.parametrize("cc", COMPILERS)
def test_compiles_without_a_warning(tmp_path: Path, cc: str, sanitize: bool) -> None:
    output = tmp_path / "ctr-launcher"
    build.build(os.fspath(output), cc=cc, sanitize=sanitize)
    assert os.access(output, os.X_OK)


def test_with_the_c_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on machines that freestanding.c does not know."""
    monkeypatch.setattr(build, "MACHINES", ())
    build.build(os.fspath(tmp_path / "ctr-launcher"))
    assert subprocess.run([tmp_path / "ctr-launcher"], check=False).returncode == 1


def test_needs_nothing_of_the_system(tmp_path: Path) -> None:
    output = tmp_path / "ctr-launcher"
    build.build(os.fspath(output))
    assert b"/ld-linux" not in output.read_bytes()


def test_compilers_messages_are_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot compile the launcher: "):
        build.build(os.fspath(tmp_path / "no" / "such" / "folder"))


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(FileNotFoundError, match="no C compiler"):
        build.build(os.fspath(tmp_path / "ctr-launcher"))


def test_build_needs_no_ctr() -> None:
    """The packaging hook loads it when ctr is not installed."""
    code = f"import runpy; runpy.run_path({os.fspath(FOLDER / 'build.py')!r})['compiler']()"
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = tmp_path / "ctr-launcher"
    monkeypatch.setattr(native, "LAUNCHER", os.fspath(launcher))
    assert not native.available()
    launcher.touch(0o755)
    assert native.available()


def test_spawn_cleans_up_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = tmp_path / "ctr-launcher"
    launcher.write_text("neither ELF nor #!")
    monkeypatch.setattr(native, "LAUNCHER", os.fspath(launcher))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="/proc/self/fd/"):
        native.spawn("x", 0, 0, (0, 1, 2), (), {})
    assert os.listdir("/proc/self/fd") == before


def test_runs_from_a_copy_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2019-5736."""
    monkeypatch.setattr(native, "LAUNCHER", shutil.which("sleep"))
    with open(os.devnull, "rb") as null:
        fd = null.fileno()
        pid, control = native.spawn("60", fd, fd, (fd, fd, fd), (), {})
    control.close()
    try:
        assert "memfd:ctr-launcher" in os.readlink(f"/proc/{pid}/exe")
        assert os.getsid(pid) == pid
        exe = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
        seals = fcntl.fcntl(exe, fcntl.F_GET_SEALS)
        os.close(exe)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for seal in (fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SEAL):
        assert seals & seal


def test_constants_are_the_protocols() -> None:
    """launcher.h repeats ctr.launcher.protocol's numbers."""
    header = (FOLDER / "launcher.h").read_text(encoding="utf-8")
    enums = re.findall(r"enum \{\s*(HELLO.*?)\}", header, re.DOTALL)
    number = 0
    names = {}
    for entry in re.sub(r"/\*.*?\*/", "", enums[0], flags=re.DOTALL).split(","):
        name, _, value = entry.strip().partition(" = ")
        if name:
            number = int(value) if value else number + 1
            names[name] = number
    shared = {name: value for name, value in names.items() if value < 64}
    assert shared == {name: getattr(protocol, name) for name in shared}
    assert set(shared) == {
        name for name, value in vars(protocol).items() if name.isupper() and isinstance(value, int)
    } - {"VERSION", "MAX_TEXT"} - {name for name in vars(protocol) if name.endswith("_FD")}
    assert f"#define PROTOCOL_VERSION {protocol.VERSION}\n" in header
    assert f"#define MAX_TEXT {protocol.MAX_TEXT}\n" in header
