"""Values as users write them on the command line, turned into typed ones.

Each function raises InvalidError, ``cannot use OPTION VALUE: cause``; sizes are bytes.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ctr.errors import InvalidError
from ctr.models import IdMap, Throttle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Names of containers, volumes and networks (docker's rule).
# Patterns are text: re compiles one at its first use, and a command uses few.
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"

_SIZE = r"(-?\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?"
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_CPUSET = r"\d+(-\d+)?(,\d+(-\d+)?)*"


def check_name(value: str, what: str = "--name") -> str:
    """A valid object name, or InvalidError."""
    if not re.fullmatch(_NAME, value) or len(value) > 255:
        raise InvalidError(
            f"cannot use {what} {value!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return value


def size(value: str, option: str) -> int:
    """``64m``, ``1.5g``, ``512`` (bytes); -1 stays -1."""
    match = re.fullmatch(_SIZE, value.strip(), re.IGNORECASE)
    if not match:
        raise InvalidError(
            f"cannot use {option} {value!r}: not a size", hint="write it like 512m or 2g"
        )
    return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])


def memory(value: str, option: str, *, least: int = 6 << 20) -> int:
    """A memory size of at least ``least`` bytes (docker's 6 MiB), or -1 for unlimited."""
    number = size(value, option)
    if number != -1 and number < least:
        raise InvalidError(f"cannot use {option} {value}: the least is {least >> 20}m")
    return number


def nano_cpus(value: str) -> int:
    """``1.5`` CPUs in 1e-9 CPUs."""
    try:
        number = float(value)
    except ValueError:
        number = -1
    count = os.cpu_count() or 1
    if not 0.01 <= number <= count:
        raise InvalidError(
            f"cannot use --cpus {value}: the range is from 0.01 to {count}.00, as there are "
            f"only {count} CPUs available"
        )
    return int(number * 1_000_000_000)


def cpuset(value: str, option: str) -> str:
    """A list such as ``0-2,4``."""
    if not re.fullmatch(_CPUSET, value):
        raise InvalidError(f"cannot use {option} {value!r}: not a list like 0-2,4")
    return value


def throttle(value: str, option: str) -> Throttle:
    """``/dev/sda:1mb`` or ``/dev/sda:1000``."""
    path, _, rate = value.rpartition(":")
    number = size(rate, option)
    try:
        device = os.stat(path).st_rdev
    except OSError as error:
        raise InvalidError(f"cannot use {option} {value!r}: {path}: {error.strerror}") from None
    if not device or number < 0:
        raise InvalidError(f"cannot use {option} {value!r}: not DEVICE:RATE")
    return Throttle(os.major(device), os.minor(device), number)


def environment(values: Iterable[str], files: Iterable[str], own: Mapping[str, str]) -> list[str]:
    """``-e`` and ``--env-file`` as KEY=VALUE; a bare KEY is taken from ``own`` if it is there."""
    result: list[str] = []
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read().splitlines()
        except OSError as error:
            raise InvalidError(f"cannot read --env-file {path}: {error.strerror}") from None
        for number, line in enumerate(lines, 1):
            text = line.lstrip()
            if text and not text.startswith("#"):
                name = text.partition("=")[0]
                if not name or " " in name or "\t" in name:
                    raise InvalidError(
                        f"cannot read --env-file {path}: line {number}: bad variable name {name!r}"
                    )
                result += _variable(text, own)
    for value in values:
        result += _variable(value, own)
    return result


def _variable(text: str, own: Mapping[str, str]) -> list[str]:
    name, equals, _ = text.partition("=")
    if not name or "\0" in text:
        raise InvalidError(f"cannot use --env {text!r}: not NAME=VALUE")
    if equals:
        return [text]
    return [f"{name}={own[name]}"] if name in own else []


def merge_environment(*layers: Iterable[str]) -> list[str]:
    """KEY=VALUE lists merged: a later one replaces an earlier one in its place."""
    merged: dict[str, str] = {}
    for layer in layers:
        for entry in layer:
            merged[entry.partition("=")[0]] = entry
    return list(merged.values())


def pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """``KEY=VALUE`` or ``KEY`` (empty value), as labels and annotations are written."""
    result = {}
    for value in values:
        key, _, text = value.partition("=")
        if not key:
            raise InvalidError(f"cannot use {option} {value!r}: not KEY=VALUE")
        result[key] = text
    return result


def id_maps(values: Iterable[str], option: str) -> tuple[IdMap, ...]:
    """``INSIDE:OUTSIDE:SIZE`` each."""
    maps = []
    for value in values:
        parts = value.split(":")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise InvalidError(f"cannot use {option} {value!r}: not INSIDE:OUTSIDE:SIZE")
        maps.append(IdMap(*map(int, parts)))
    return tuple(maps)


def time_offset(value: str) -> tuple[str, int]:
    """``monotonic=SECONDS`` or ``boottime=SECONDS``; returns the clock and nanoseconds."""
    clock, _, seconds = value.partition("=")
    try:
        number = float(seconds)
    except ValueError:
        number = float("nan")
    if clock not in ("monotonic", "boottime") or not abs(number) <= 1e9:
        raise InvalidError(
            f"cannot use --time-offset {value!r}: not monotonic=SECONDS or boottime=SECONDS"
        )
    return clock, int(number * 1_000_000_000)


def signal_number(value: str, option: str) -> int:
    """``TERM``, ``SIGTERM``, ``15`` or ``RTMIN+3``."""
    import signal

    text = value.upper().removeprefix("SIG")
    if text.isdecimal():
        if 1 <= int(text) <= signal.SIGRTMAX:
            return int(text)
    elif match := re.match(r"RT(MIN|MAX)([+-]\d+)?\Z", text):
        number = int(signal.SIGRTMIN if match[1] == "MIN" else signal.SIGRTMAX)
        number += int(match[2] or 0)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    elif f"SIG{text}" in signal.Signals.__members__:
        return int(signal.Signals[f"SIG{text}"])
    raise InvalidError(f"cannot use {option} {value!r}: no such signal")
