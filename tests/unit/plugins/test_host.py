from __future__ import annotations

import sys

import attrs
import pytest

from ctr.config import load
from ctr.drivers import DriverContext, DriverInfo, Probe
from ctr.errors import DriverError, InvalidError, NotFoundError
from ctr.plugins import Offer

DRIVER = "from ctr.hookspecs import hookimpl\nfrom ctr.drivers import DriverInfo\n@hookimpl\n"

HOOKS = """
from ctr.hookspecs import hookimpl

@hookimpl
def ctr_poststart(context):
    BODY

@hookimpl
def ctr_create_runtime(context):
    BODY
"""


def hooks(body: str) -> str:
    return HOOKS.replace("BODY", body)


def offer(probe=lambda context: Probe(True), factory=lambda context: None) -> Offer:
    return Offer("storage", DriverInfo("x", "", factory, probe), "plug", "dist-x", "1.0")


@attrs.frozen
class Options:
    size: int = 0


CONTEXT = DriverContext("/r", "/rr")


def test_drivers_of_every_plugin_are_offered_by_name(site):
    site.storage("ctr-a", "a", "alpha")
    site.storage("ctr-b", "b", "beta")
    offers = site.host().drivers("storage")
    assert list(offers) == ["alpha", "beta"]
    assert offers["beta"].distribution == "ctr-b"
    assert offers["beta"].version == "1.0"
    assert site.host().drivers("network") == {}
    assert not site.warnings


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        ("", "implements no hook"),
        (
            "from ctr.hookspecs import hookimpl\n@hookimpl\ndef ctr_no_such_hook(): pass",
            "ctr_no_such_hook",
        ),
        (
            "from ctr.hookspecs import hookimpl\n@hookimpl\ndef ctr_poststart(nonsense): pass",
            "nonsense",
        ),
        (
            "from ctr.hookspecs import hookimpl\n@hookimpl\ndef ctr_storage_drivers(): return [1]",
            "no DriverInfo",
        ),
        (
            DRIVER + "def ctr_storage_drivers(): return [DriverInfo('x', '', None, None, api=99)]",
            "version 99 of the driver interface",
        ),
        (
            DRIVER + "def ctr_storage_drivers(): return [DriverInfo('../x', '', None, None)]",
            "no name for a driver",
        ),
    ],
)
def test_a_broken_plugin_is_named_once_and_skipped(site, source, cause):
    site.storage("ctr-good", "good", "good")
    site.install("ctr-bad", "bad", source, version="0.3")
    host = site.host()
    assert list(host.drivers("storage")) == ["good"]
    host.drivers("storage")
    (warning,) = site.warnings
    assert "plugin bad (ctr-bad 0.3) is skipped" in warning
    assert cause in warning
    assert [broken.name for broken in host.broken()] == ["bad"]
    # Another process reads the index and says the same.
    site.warnings.clear()
    assert list(site.host().drivers("storage")) == ["good"]
    assert cause in site.warnings[0]


def test_a_broken_plugin_is_an_error_when_that_is_asked_for(site):
    site.install("ctr-bad", "bad", "1 / 0")
    with pytest.raises(DriverError, match=r"plugin bad \(ctr-bad 1.0\)"):
        site.host(CTR_STRICT_PLUGINS="1").drivers("storage")


def test_one_entry_point_name_in_two_distributions(site):
    site.storage("ctr-a", "same", "alpha")
    site.storage("ctr-b", "same", "beta")
    assert list(site.host().drivers("storage")) == ["alpha"]
    (warning,) = site.warnings
    assert "ctr-a" in warning
    assert "ctr-b" in warning


def test_one_driver_name_in_two_plugins(site):
    site.storage("ctr-a", "a", "same")
    site.storage("ctr-b", "b", "same")
    assert site.host().driver("storage", "same").distribution == "ctr-a"
    (warning,) = site.warnings
    assert "ctr-a" in warning
    assert "plugin b (ctr-b 1.0)" in warning


def test_an_unknown_driver_lists_the_others_and_the_broken(site):
    site.storage("ctr-a", "a", "alpha")
    site.install("ctr-bad", "bad", "1 / 0")
    with pytest.raises(NotFoundError, match="installed: alpha") as caught:
        site.host().driver("storage", "beta")
    assert "bad (ctr-bad)" in caught.value.hint


def test_no_plugins(site):
    site.storage("ctr-a", "a", "alpha")
    host = site.host(enabled=False)
    assert host.drivers("storage") == {}
    with pytest.raises(NotFoundError, match="none is installed") as caught:
        host.driver("storage", "alpha")
    assert "--no-plugins" in caught.value.hint


def test_a_plugin_that_breaks_after_it_was_indexed(site):
    site.storage("ctr-a", "a", "alpha")
    site.host().plugins()
    host = site.host()
    host.plugins()
    (site.folder / "ctr_a.py").write_text("1 / 0")
    sys.modules.pop("ctr_a")
    assert host.drivers("storage") == {}
    assert "plugin a (ctr-a 1.0) is skipped: ZeroDivisionError" in site.warnings[0]


def test_every_hook_implementation_runs(site, capsys):
    site.install("ctr-a", "a", hooks("print('a', context)"))
    site.install("ctr-b", "b", hooks("print('b', context)"))
    site.host().call("ctr_poststart", context="C")
    assert capsys.readouterr().out == "a C\nb C\n"


def test_a_hook_that_raises_names_its_plugin(site, capsys):
    site.install("ctr-a", "a", hooks("raise ValueError('no luck')"))
    site.install("ctr-b", "b", hooks("print('b')"))
    with pytest.raises(DriverError, match=r"ctr_create_runtime: plugin a \(ctr-a 1.0\).*no luck"):
        site.host().call("ctr_create_runtime", context=None)
    site.host().warn_call("ctr_poststart", context=None)
    assert "plugin a (ctr-a 1.0)" in site.warnings[0]
    assert capsys.readouterr().out == "b\n"


def test_hook_calls_can_be_traced(site, capsys):
    site.install("ctr-a", "a", hooks("pass"))
    site.host(CTR_TRACE_PLUGINS="1").call("ctr_poststart", context="the context")
    printed = capsys.readouterr().err
    assert "ctr_poststart" in printed
    assert "the context" in printed


def test_a_probe_that_raises_has_failed(site):
    host, settings = site.host(), load({}, {})
    assert host.probe(offer(), settings) == Probe(True)
    assert host.probe(offer(probe=lambda context: 1 // 0), settings) == Probe(
        False, "probe failed: ZeroDivisionError: integer division or modulo by zero"
    )
    assert not host.probe(offer(probe=lambda context: None), settings).ok


def test_a_probe_sees_the_options_that_the_driver_would_get(site):
    site.storage("ctr-a", "a", "x")
    sized = offer(probe=lambda context: Probe(context.options.size == 64, "size"))
    sized = sized._replace(info=sized.info._replace(options=f"{__name__}:Options"))
    host = site.host()
    assert host.probe(sized, load({"storage": "x", "storage_opts": ("size=64",)}, {})).ok
    assert not host.probe(sized, load({"storage": "x", "storage_opts": ("size=65",)}, {})).ok
    wrong = host.probe(sized, load({"storage": "x", "storage_opts": ("siz=64",)}, {}))
    assert (wrong.ok, wrong.hint) == (False, "did you mean 'size'?")


def test_a_factory_that_raises_names_its_plugin(site):
    def refuse(context):
        raise InvalidError("cannot use it: no")

    host = site.host()
    assert host.open(offer(factory=lambda context: context), CONTEXT) is CONTEXT
    with pytest.raises(DriverError, match=r"driver x: plugin plug \(dist-x 1.0\).*ZeroDivision"):
        host.open(offer(factory=lambda context: 1 // 0), CONTEXT)
    with pytest.raises(InvalidError):
        host.open(offer(factory=refuse), CONTEXT)


CGROUPS = """
from ctr.drivers import DriverInfo, Probe
from ctr.hookspecs import hookimpl

@hookimpl
def ctr_cgroup_drivers():
    return [
        DriverInfo("v1", "", None, lambda context: Probe(V1, "no v1")),
        DriverInfo("v2", "", None, lambda context: Probe(V2, "no v2")),
    ]
"""


@pytest.mark.parametrize(("v1", "v2", "chosen"), [(1, 1, "v2"), (1, 0, "v1"), (0, 1, "v2")])
def test_the_default_cgroup_driver_is_the_first_that_works(site, v1, v2, chosen):
    site.install("ctr-c", "c", CGROUPS.replace("V1", str(v1)).replace("V2", str(v2)))
    settings = load({}, {}, uid=0, system_file="/nonexistent")
    assert site.host().choose("cgroup", settings).info.name == chosen


def test_no_cgroup_driver_works(site):
    site.install("ctr-c", "c", CGROUPS.replace("V1", "0").replace("V2", "0"))
    settings = load({}, {}, uid=0, system_file="/nonexistent")
    with pytest.raises(NotFoundError, match="v2: no v2; v1: no v1"):
        site.host().choose("cgroup", settings)


def test_an_explicit_choice_is_that_driver_or_an_error(site):
    site.storage("ctr-a", "a", "alpha")
    settings = load({"storage": "beta"}, {}, uid=0, system_file="/nonexistent")
    with pytest.raises(NotFoundError, match=r"installed: alpha \(chosen by --storage\)"):
        site.host().choose("storage", settings)
    settings = load(
        {"storage": "alpha", "storage_opts": ("x=1",)}, {}, uid=0, system_file="/nonexistent"
    )
    with pytest.raises(InvalidError, match="driver alpha has no options"):
        site.host().choose("storage", settings)
    settings = load({"storage": "alpha"}, {}, uid=0, system_file="/nonexistent")
    assert site.host().choose("storage", settings).info.name == "alpha"
