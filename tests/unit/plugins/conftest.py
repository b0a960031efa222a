"""A search path that holds only the plugins that a test makes."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from typing import TYPE_CHECKING

import attrs  # noqa: F401  (before it can't be found any more)
import pluggy  # noqa: F401
import pytest

from ctr.plugins import PluginHost

if TYPE_CHECKING:
    from pathlib import Path

STORAGE = """
from ctr.drivers import DriverInfo, Probe
from ctr.hookspecs import hookimpl

@hookimpl
def ctr_storage_drivers():
    return [DriverInfo("NAME", "summary", lambda context: context, lambda context: Probe(True))]
"""


class Site:
    """A site-packages folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []

    def install(self, dist: str, entry: str, source: str, *, module: str = "", version="1.0"):
        """Install a distribution with one entry point and one module."""
        module = module or dist.replace("-", "_")
        info = self.folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ctr]\n{entry} = {module}\n")
        (self.folder / f"{module}.py").write_text(textwrap.dedent(source))
        self.changed()

    def storage(self, dist: str, entry: str, driver: str) -> None:
        self.install(dist, entry, STORAGE.replace("NAME", driver))

    def changed(self) -> None:
        """What another process would see at its start; times may be too coarse to differ."""
        status = os.stat(self.folder)
        os.utime(self.folder, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if (self.folder / f"{name}.py").exists()]:
            del sys.modules[name]

    def host(self, *, enabled: bool = True, **environment: str) -> PluginHost:
        """A new process's host."""
        environment.setdefault("XDG_CACHE_HOME", str(self.folder.parent / "cache"))
        return PluginHost(enabled=enabled, environment=environment, warn=self.warnings.append)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "__pycache__").mkdir()  # made later, it would change the folder's time
    # The standard library alone: what is imported already stays, and its folders don't change.
    kept = [
        path
        for path in sys.path
        if path.startswith(sys.base_prefix) and "site-packages" not in path
    ]
    monkeypatch.setattr(sys, "path", [str(folder), *kept])
    importlib.invalidate_caches()
    site = Site(folder)
    yield site
    site.changed()
