"""``K=V`` options of a driver, typed by its attrs class.

A driver names the class in ``DriverInfo.options``.  Its attributes are annotated with
``str``, ``int``, ``bool``, ``Size`` or one of these ``| None``; the class's own validators
run as well.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NewType

from ctr.config import did_you_mean
from ctr.errors import DriverError, InvalidError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Bytes, written as in ``64m``: units b, k, m, g, t are powers of 1024.
Size = NewType("Size", int)

_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def parse(driver: str, options: str, given: Sequence[str]) -> object:
    """Return an instance of the options class, or None when nothing was given.

    (The class, and attrs with it, would cost each start 30 ms otherwise; a driver takes None
    for its defaults.)  ``options`` is ``DriverInfo.options``, ``given`` has the ``K=V``; the last of a key
    wins, and a lone ``K`` of a boolean is true.  Raises InvalidError for an unknown or
    missing key and for a wrong value, DriverError where the class can't be used.
    """
    if not given:
        return None
    if not options:
        raise InvalidError(f"cannot use option {given[0]!r}: driver {driver} has no options")
    cls, types = _resolve(driver, options)
    values: dict[str, object] = {}
    for item in given:
        key, equals, text = item.partition("=")
        if key not in types:
            raise InvalidError(
                f"cannot use option {key!r} of driver {driver}: there is no such option",
                hint=did_you_mean(key, sorted(types)),
            )
        if not equals and bool in types[key]:
            text = "true"
        elif not equals:
            raise InvalidError(f"cannot use option {key!r} of driver {driver}: it needs a value")
        try:
            values[key] = _convert(types[key], text)
        except ValueError as error:
            raise InvalidError(f"cannot use option {item!r} of driver {driver}: {error}") from error
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise InvalidError(f"cannot use the options of driver {driver}: {error}") from error


def describe(driver: str, options: str) -> list[dict[str, str]]:
    """The options of a driver: name, type, default and help of each."""
    if not options:
        return []
    import attrs

    cls, types = _resolve(driver, options)
    return [
        {
            "name": field.name,
            "type": " | ".join(_type_name(kind) for kind in types[field.name]),
            "default": "required" if field.default is attrs.NOTHING else str(field.default),
            "help": str(field.metadata.get("help", "")),
        }
        for field in attrs.fields(cls)
        if field.init
    ]


def parse_size(text: str) -> int:
    """Bytes from ``512``, ``64k``, ``1.5g``, ``2GiB``.  Raises ValueError."""
    number = text.strip().lower()
    unit = number.lstrip("0123456789.")
    number = number[: len(number) - len(unit)]
    unit = unit.removesuffix("ib") if unit.endswith("ib") else unit
    if len(unit) == 2 and unit.endswith("b"):
        unit = unit[0]
    try:
        return int(float(number) * (1 << _UNITS[unit]))
    except (ValueError, KeyError):
        raise ValueError(f"{text!r} is not a size such as 64m") from None


def _resolve(driver: str, options: str) -> tuple[Any, dict[str, tuple[Any, ...]]]:
    """The class, and the types that each option may have."""
    import types
    import typing

    import attrs

    module, _, name = options.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
        hints = typing.get_type_hints(cls)
        fields = [field.name for field in attrs.fields(cls) if field.init]
    except Exception as error:  # a third party's module may raise anything
        raise DriverError(
            f"cannot read the options of driver {driver}: {options}: {error}"
        ) from error
    found = {}
    for field in fields:
        hint = hints[field]
        union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        found[field] = typing.get_args(hint) if union else (hint,)
    return cls, found


def _type_name(kind: Any) -> str:
    return "none" if kind is type(None) else str(getattr(kind, "__name__", kind)).lower()


def _convert(types: tuple[Any, ...], text: str) -> object:
    """``text`` as the first of ``types`` that takes it."""
    wrong = ValueError("its type is not supported")
    for kind in types:
        if kind is type(None):
            continue
        try:
            return _as(kind, text)
        except ValueError as error:
            wrong = error
    raise wrong


def _as(kind: Any, text: str) -> object:
    if kind is str:
        return text
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError(f"{text!r} is not a boolean")
    if kind is Size:
        return parse_size(text)
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
    raise ValueError(f"type {kind!r} is not supported")
