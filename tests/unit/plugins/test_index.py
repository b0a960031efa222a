from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ctr import plugin_index


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "cache" / "ctr")


@pytest.fixture
def builds(monkeypatch):
    """How often the index was built."""
    count = []
    build = plugin_index.build

    def counted():
        count.append(1)
        return build()

    monkeypatch.setattr(plugin_index, "build", counted)
    return count


def test_it_is_built_once(site, folder, builds):
    site.storage("ctr-a", "a", "alpha")
    first = plugin_index.load(folder)
    assert plugin_index.load(folder) == first
    assert first[0] == plugin_index.Plugin(
        "a", "ctr_a", "ctr-a", "1.0", ("ctr_storage_drivers",), (("storage", "alpha"),)
    )
    assert len(builds) == 1
    (file,) = os.listdir(folder)
    assert os.stat(f"{folder}/{file}").st_mode & 0o777 == 0o600


def test_installing_makes_it_anew(site, folder, builds):
    plugin_index.load(folder)
    site.storage("ctr-a", "a", "alpha")
    assert [plugin.name for plugin in plugin_index.load(folder)] == ["a"]
    assert len(builds) == 2


def test_editing_a_plugin_makes_it_anew(site, folder, builds):
    site.storage("ctr-a", "a", "alpha")
    plugin_index.load(folder)
    module = site.folder / "ctr_a.py"
    status = os.stat(site.folder)
    module.write_text("1 / 0")
    os.utime(module, ns=(0, 1))
    os.utime(site.folder, ns=(status.st_atime_ns, status.st_mtime_ns))
    sys.modules.pop("ctr_a")
    assert plugin_index.load(folder)[0].error.startswith("ZeroDivisionError")
    assert len(builds) == 2


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "nonsense", '{"format": 1, "api": 1, "stamps": {}, "plugins": [1]}']
)
def test_a_damaged_file_is_not_used(site, folder, content):
    site.storage("ctr-a", "a", "alpha")
    plugin_index.load(folder)
    (file,) = os.listdir(folder)
    with open(f"{folder}/{file}", "w") as index:
        index.write(content)
    assert [plugin.name for plugin in plugin_index.load(folder)] == ["a"]


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_a_file_that_others_could_have_written_is_not_used(site, folder, builds, what):
    plugin_index.load(folder)
    (file,) = os.listdir(folder)
    path = f"{folder}/{file}"
    if what == "link":
        os.rename(path, f"{path}.away")
        os.symlink(f"{path}.away", path)
    else:
        os.chmod(path if what == "file" else folder, 0o722)
    plugin_index.load(folder)
    assert len(builds) == 2


def test_a_folder_that_cannot_be_made_costs_time_only(site, tmp_path):
    (tmp_path / "file").write_text("")
    site.storage("ctr-a", "a", "alpha")
    assert [p.name for p in plugin_index.load(str(tmp_path / "file" / "ctr"))] == ["a"]


def test_where_it_is_kept(monkeypatch):
    assert plugin_index.cache_folder({"XDG_CACHE_HOME": "/c"}) == "/c/ctr"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert plugin_index.cache_folder({"XDG_CACHE_HOME": "relative"}) == "/var/cache/ctr"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert plugin_index.cache_folder({}) == os.path.expanduser("~/.cache/ctr")


def test_a_driver_is_found_without_importing_the_others(site):
    """Nor anything that is slow to import."""
    site.storage("ctr-a", "a", "alpha")
    site.storage("ctr-b", "b", "beta")
    code = """
import sys
from ctr.plugins import PluginHost
host = PluginHost()
host.plugins()
assert host.driver("storage", "beta").plugin == "b"
print(*sys.modules)
"""
    environment = {
        "PYTHONPATH": os.pathsep.join(path for path in [*sys.path, *_packages()] if path),
        "XDG_CACHE_HOME": str(site.folder.parent / "cache"),
    }
    for _ in range(2):  # the first makes the index
        run = subprocess.run(
            [sys.executable, "-P", "-c", code],
            cwd=site.folder.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    imported = run.stdout.split()
    assert "ctr_b" in imported
    for module in ("ctr_a", "importlib.metadata", "attrs", "asyncio", "logging", "subprocess"):
        assert module not in imported


def _packages():
    import pluggy

    import ctr

    return {os.path.dirname(os.path.dirname(str(module.__file__))) for module in (pluggy, ctr)}
