from __future__ import annotations

import json
import os

import pytest

from ctr import doctor
from ctr.cli import main
from ctr.config import load
from ctr.drivers import DriverInfo, Probe
from ctr.errors import NotFoundError
from ctr.plugin_index import Plugin
from ctr.plugins import Offer


class Host:
    """Plugins of a machine that can do everything, until told otherwise."""

    def __init__(self):
        self.unusable = {}
        self.offered = {
            "storage": ["overlay", "vfs"],
            "network": ["bridge"],
            "cgroup": ["v1"],
            "namespace": [*doctor.NEEDED_NAMESPACES, "time"],
        }
        self.index = [Plugin("good", "good", "ctr-good", "1.0")]

    def plugins(self):
        return self.index

    def drivers(self, kind):
        return {
            name: Offer(
                kind,
                DriverInfo(name, "", lambda context: None, lambda context: Probe(True)),
                "p",
                "d",
                "1",
            )
            for name in self.offered[kind]
        }

    def choose(self, kind, settings):
        try:
            return self.drivers(kind)[settings.driver(kind) or "v1"]
        except KeyError:
            raise NotFoundError("cannot find it", hint="install it") from None

    def probe(self, offer, context):
        return self.unusable.get((offer.kind, offer.info.name), Probe(True))


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def examine(host, tmp_path):
    """The checks that aren't ok, by name."""

    def examine(**flags):
        flags = {"root": str(tmp_path / "root"), "run_root": str(tmp_path / "run")} | flags
        settings = load(flags, {}, uid=0, system_file="/nonexistent")
        checks = [
            check
            for check in doctor.examine(settings, host)
            if check.section in {"state", "plugins", "drivers"} and check.status != doctor.OK
        ]
        for check in checks:
            assert check.remedy
        return {check.name: check.status for check in checks}

    return examine


def test_a_machine_that_can_do_everything(examine):
    assert examine() == {}


def test_only_what_is_chosen_is_a_problem(examine, host):
    host.unusable["storage", "vfs"] = Probe(False, "no", "do")
    assert examine() == {"storage vfs": doctor.WARNING}
    assert examine(storage="vfs") == {"storage vfs": doctor.PROBLEM}


def test_a_chosen_driver_that_is_missing(examine):
    assert examine(storage="zfs") == {"storage": doctor.PROBLEM}


def test_namespaces(examine, host):
    host.unusable["namespace", "time"] = Probe(False, "no")
    host.unusable["namespace", "pid"] = Probe(False, "no")
    host.offered["namespace"].remove("uts")
    assert examine() == {
        "namespace time": doctor.WARNING,
        "namespace pid": doctor.PROBLEM,
        "namespace uts": doctor.PROBLEM,
    }


def test_a_broken_plugin_is_a_warning(examine, host):
    host.index.append(Plugin("bad", "bad", "ctr-bad", "1.0", error="ImportError: x"))
    assert examine() == {"bad": doctor.WARNING}


def test_state_that_cannot_be_written(examine):
    assert examine(root="/proc/version/x") == {"root": doctor.PROBLEM}


def test_another_user_than_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (user, *_) = doctor._machine()
    assert user.status == doctor.PROBLEM
    assert user.remedy == "run ctr as root"


@pytest.mark.parametrize(
    ("broken", "status", "line"),
    [
        ([], 0, "containers can run with the default drivers"),
        (["a"], 1, "problem: a: do this"),
        (["a"], 1, "1 problem: containers can't run with these settings"),
        (["a", "b"], 1, "2 problems: containers can't run with these settings"),
    ],
)
def test_the_command_exits_1_when_containers_cannot_run(monkeypatch, capsys, broken, status, line):
    checks = [
        doctor.Check("kernel", "x", doctor.OK),
        doctor.Check("kernel", "y", doctor.WARNING, "hm", "do that"),
        *(doctor.Check("kernel", name, doctor.PROBLEM, "bad", "do this") for name in broken),
    ]
    monkeypatch.setattr(doctor, "examine", lambda settings, host: iter(checks))
    assert main.run(["doctor"]) == status
    printed = capsys.readouterr().out.splitlines()
    assert line in printed
    assert "warning: y: do that" in printed
    assert main.run(["doctor", "--format", "json"]) == status
    assert json.loads(capsys.readouterr().out)[0] == checks[0]._asdict()


def test_every_command_of_plugins_works_without_plugins(capsys):
    assert main.run(["--no-plugins", "plugin", "ls"]) == 0
    assert capsys.readouterr().out == "NAME   DISTRIBUTION   VERSION   STATUS   HOOKS\n"
    assert main.run(["--no-plugins", "drivers"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("KIND")
    assert "--no-plugins" not in printed.out
    assert main.run(["--no-plugins", "doctor"]) == 1


def test_plugins_are_listed_and_inspected(capsys):
    assert main.run(["plugin", "ls"]) == 0
    assert "storage-vfs" in capsys.readouterr().out
    assert main.run(["plugin", "inspect", "storage-vfs"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["distribution"] == "ctr-storage-vfs"
    assert record["drivers"][0]["name"] == "vfs"
    assert main.run(["plugin", "inspect", "nothing"]) == 1
    assert "cannot find plugin 'nothing'" in capsys.readouterr().err


def test_drivers_are_listed(capsys):
    assert main.run(["--storage", "vfs", "drivers", "--format", "json"]) == 0
    drivers = {(d["kind"], d["driver"]): d for d in json.loads(capsys.readouterr().out)}
    assert drivers["storage", "vfs"]["default"]
    assert not drivers["storage", "overlay"]["default"]
    assert drivers["storage", "overlay"]["distribution"] == "ctr-storage-overlay"
