from __future__ import annotations

import pytest

from ctr.config import did_you_mean, load
from ctr.drivers import DriverContext
from ctr.errors import InvalidError, StateError


@pytest.fixture
def system_file(tmp_path):
    return tmp_path / "config.toml"


@pytest.fixture
def settings(system_file, tmp_path):
    def settings(flags=None, environment=None, uid=0):
        environment = {"HOME": str(tmp_path / "home")} | (environment or {})
        return load(flags or {}, environment, uid=uid, system_file=str(system_file))

    return settings


def test_defaults_of_root(settings):
    found = settings()
    assert (found.root, found.run_root) == ("/var/lib/ctr", "/run/ctr")
    assert (found.storage, found.network_driver, found.cgroups) == ("overlay", "bridge", None)
    assert found.plugins
    assert found.sources == {}


def test_defaults_of_a_user(settings, tmp_path):
    found = settings(uid=1000)
    assert found.root == f"{tmp_path}/home/.local/share/ctr"
    assert found.run_root == "/run/user/1000/ctr"
    found = settings(environment={"XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/r"}, uid=1000)
    assert (found.root, found.run_root) == ("/d/ctr", "/r/ctr")


def test_a_flag_beats_the_environment_beats_the_file(settings, system_file):
    system_file.write_text('storage = "file"\nnetwork_driver = "file"\ncgroups = "file"\n')
    found = settings(
        {"storage": "flag", "cgroups": None}, {"CTR_STORAGE": "env", "CTR_NETWORK_DRIVER": "env"}
    )
    assert (found.storage, found.network_driver, found.cgroups) == ("flag", "env", "file")
    assert found.source("storage") == "--storage"
    assert found.source("network") == "CTR_NETWORK_DRIVER"
    assert found.source("cgroup") == str(system_file)
    assert found.source("namespace") == ""


def test_an_empty_variable_is_none(settings):
    assert settings(environment={"CTR_STORAGE": ""}).storage == "overlay"


def test_only_users_have_a_file_of_their_own(settings, system_file, tmp_path):
    system_file.write_text('storage = "system"\ncgroups = "system"\n')
    own = tmp_path / "xdg" / "ctr" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('storage = "own"\n')
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    user = settings(environment=environment, uid=1000)
    assert (user.storage, user.cgroups) == ("own", "system")
    assert user.source("storage") == str(own)
    assert settings(environment=environment, uid=0).storage == "system"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("storag = 'x'", "unknown key 'storag'"),
        ("storage = 1", "storage must be a string"),
        ("storage = [", "config.toml: "),
        ("storage_options = 'x'", "storage_options must be a table"),
        ("storage_options.overlay = 'x'", "storage_options.overlay must be a table"),
        ("storage_options.overlay.x = []", "storage_options.overlay.x must be"),
        ("log_format = 'xml'", "log_format must be one of text, json"),
        ("root = ''", "must be a path"),
    ],
)
def test_a_wrong_file_is_named(settings, system_file, text, message):
    system_file.write_text(text)
    with pytest.raises(InvalidError, match=message) as caught:
        settings()
    assert str(system_file) in caught.value.message


def test_an_unknown_key_gets_the_nearest_name(settings, system_file):
    system_file.write_text("storag = 'x'")
    with pytest.raises(InvalidError) as caught:
        settings()
    assert caught.value.hint == "did you mean 'storage'?"


def test_a_file_that_is_not_text(settings, system_file):
    system_file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidError):
        settings()


def test_a_file_that_cannot_be_read(settings, system_file):
    system_file.mkdir()
    with pytest.raises(StateError, match="cannot read"):
        settings()


def test_options_belong_to_their_driver(settings, system_file):
    system_file.write_text(
        "[storage_options.overlay]\nindex = true\nsize = 3\n[storage_options.vfs]\nx = 'y'\n"
    )
    found = settings({"storage_opts": ("index=false",)})
    assert found.options("storage", "overlay") == ("index=true", "size=3", "index=false")
    assert found.options("storage", "vfs") == ("x=y",)
    assert found.options("network", "bridge") == ()
    assert found.options("namespace", "pid") == ()
    # Nobody chose a cgroup driver: the flag is for whichever is used.
    assert settings({"cgroup_opts": ("a=b",)}).options("cgroup", "v1") == ("a=b",)


def test_folders_are_absolute_and_drivers_have_their_own(settings, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = settings({"root": "state", "run_root": "/r/../run"})
    assert (found.root, found.run_root) == (f"{tmp_path}/state", "/run")
    assert found.context("storage", "vfs") == DriverContext(
        f"{tmp_path}/state/storage/vfs", "/run/storage/vfs"
    )


def test_the_nearest_name_or_all():
    assert did_you_mean("overlya", ["overlay", "vfs"]) == "did you mean 'overlay'?"
    assert did_you_mean("zzz", ["overlay", "vfs"]) == "known: overlay, vfs"
    assert did_you_mean("zzz", []) == ""
