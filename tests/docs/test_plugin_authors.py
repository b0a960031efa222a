"""The reference names every hook, field, protocol, marker and variable, as they are."""

from __future__ import annotations

import inspect
import os
import re

import pytest

from ctr import config, drivers, hookspecs
from ctr.cli import plugin as plugin_commands
from ctr.testing import pytest_plugin

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope="module")
def reference():
    with open(f"{ROOT}/docs/plugin-authors/reference.md") as file:
        return file.read()


def hooks():
    return {
        name: function
        for name, function in vars(hookspecs).items()
        if hasattr(function, f"{hookspecs.GROUP}_spec")
    }


def test_hooks_are_documented_in_order_with_their_signatures(reference):
    documented = re.findall(r"^### `(.*)`$", reference, re.MULTILINE)
    assert documented == [f"{name}{_signature(function)}" for name, function in hooks().items()]


def _signature(function):
    return str(inspect.signature(function)).replace("'", "")


def test_every_field_of_a_description_is_documented(reference):
    for name in drivers.DriverInfo._fields:
        assert f"| `{name}` |" in reference
    for fields in (drivers.DriverContext._fields, drivers.HookContext._fields):
        for name in fields:
            assert f"`{name}`" in reference


@pytest.mark.parametrize("kind", drivers.KINDS)
def test_every_kind_has_its_protocol_and_its_laws(reference, kind):
    (row,) = re.findall(rf"^\| {kind} \|.*$", reference, re.MULTILINE)
    protocol = row.split("`")[1]
    assert protocol in vars(drivers)
    assert inspect.getdoc(vars(drivers)[protocol])
    module, _, name = row.split("`")[3].partition(".")
    assert name in vars(__import__(f"ctr.testing.{module}", fromlist=[name]))
    if kind in config.CHOICES:
        field = config.CHOICES[kind][0]
        (variable,) = [key for key, value in config.ENVIRONMENT.items() if value == field]
        assert f"`{config.FLAGS[field]}`, `{variable}`" in row


def test_markers_commands_and_variables(reference):
    for marker in pytest_plugin.MARKERS:
        assert f"marker `{re.split('[:(]', marker)[0]}" in reference
    for name in plugin_commands.plugin.commands:
        assert f"`ctr plugin {name}" in reference
    for word in ("CTR_STRICT_PLUGINS", "CTR_TRACE_PLUGINS", "CTR_REQUIRE", "--ctr-require"):
        assert word in reference
