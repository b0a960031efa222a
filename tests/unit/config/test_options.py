from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.errors import DriverError, InvalidError
from ctr.options import Size, describe, parse, parse_size


@attrs.frozen
class Options:
    size: Size = attrs.field(default=Size(0), metadata={"help": "how much"})
    level: int = 3
    fast: bool = False
    name: str = "x"
    maybe: int | None = None


@attrs.frozen
class Needy:
    pool: str
    count: int = attrs.field(default=1, validator=attrs.validators.ge(1))


OPTIONS = f"{__name__}:Options"
NEEDY = f"{__name__}:Needy"


def test_values_have_the_types_of_the_class():
    given = ["size=64m", "level=-1", "fast=yes", "name=a=b", "maybe=7"]
    assert parse("d", OPTIONS, given) == Options(Size(64 << 20), -1, True, "a=b", 7)
    assert parse("d", OPTIONS, ["fast", "level=1", "level=2"]) == Options(fast=True, level=2)


def test_nothing_given_imports_nothing():
    assert parse("d", "no.such.module:Options", []) is None
    assert parse("d", "", []) is None


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (OPTIONS, "sise=1", "'sise' of driver d: there is no such option"),
        (OPTIONS, "level", "'level' of driver d: it needs a value"),
        (OPTIONS, "level=many", "'many' is not a whole number"),
        (OPTIONS, "fast=perhaps", "'perhaps' is not a boolean"),
        (OPTIONS, "size=big", "'big' is not a size"),
        (NEEDY, "count=1", "pool"),
        (NEEDY, "count=0", "pool"),
        ("", "x=1", "driver d has no options"),
    ],
)
def test_wrong_options(options, given, message):
    with pytest.raises(InvalidError, match=message):
        parse("d", options, [given])


def test_the_class_validates():
    with pytest.raises(InvalidError, match="count"):
        parse("d", NEEDY, ["pool=p", "count=0"])


def test_the_nearest_name():
    with pytest.raises(InvalidError) as caught:
        parse("d", OPTIONS, ["sise=1"])
    assert caught.value.hint == "did you mean 'size'?"


@pytest.mark.parametrize(
    "options", ["no.such.module:X", f"{__name__}:Missing", "ctr.errors:CtrError"]
)
def test_a_class_that_cannot_be_used_is_the_drivers_fault(options):
    with pytest.raises(DriverError, match="options of driver d"):
        parse("d", options, ["x=1"])


def test_options_are_described():
    assert describe("d", "") == []
    described = {entry["name"]: entry for entry in describe("d", OPTIONS)}
    assert described["size"] == {"name": "size", "type": "size", "default": "0", "help": "how much"}
    assert described["maybe"]["type"] == "int | none"
    assert describe("d", NEEDY)[0]["default"] == "required"


@given(st.integers(0, 1 << 50), st.sampled_from(["", "k", "M", "gb", "GiB", "t"]))
def test_sizes_are_powers_of_1024(number, unit):
    shift = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[unit[:1].lower()]
    if number << shift < 1 << 53:
        assert parse_size(f"{number}{unit}") == number << shift


@given(st.text(max_size=8))
def test_a_size_is_a_number_or_an_error(text):
    try:
        size = parse_size(text)
    except ValueError:
        return
    assert size >= 0
