"""How commands print: tables as docker prints them, and JSON."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ctr.errors import CtrError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

GUTTER = 3


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of left-aligned columns with docker's gutter of three spaces."""
    lines = [list(headers), *([_plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) + GUTTER for column in zip(*lines, strict=True)]
    widths[-1] = 0
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print ``table``."""
    sys.stdout.write(table(headers, rows))


def print_json(value: object) -> None:
    """Print ``value`` as indented JSON."""
    import json

    sys.stdout.write(json.dumps(value, indent=4) + "\n")


def _plain(cell: str) -> str:
    """``cell`` without control characters: names come from images and third parties."""
    return cell if cell.isprintable() else "".join(c if c.isprintable() else "?" for c in cell)


def each(references: Sequence[str], act: Callable[[str], str]) -> None:
    """Call ``act`` for each reference and print what it returns, going on past errors.

    One error is raised as it is, several as an ExceptionGroup.
    """
    errors: list[Exception] = []
    for reference in references:
        try:
            print(act(reference))
        except (CtrError, ExceptionGroup) as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(references)} failed", errors)


def ago(ns: int) -> str:
    """Docker's words for how long ago a time in nanoseconds is."""
    seconds = max(0, int(time.time() - ns / 1e9))
    for limit, size, word in (
        (1, 1, "Less than a second"),
        (2, 1, "1 second"),
        (60, 1, "seconds"),
        (120, 60, "About a minute"),
        (3600, 60, "minutes"),
        (7200, 3600, "About an hour"),
        (48 * 3600, 3600, "hours"),
        (14 * 86400, 86400, "days"),
        (60 * 86400, 7 * 86400, "weeks"),
        (730 * 86400, 30 * 86400, "months"),
    ):
        if seconds < limit:
            return word if word[0].isupper() or word[0] == "1" else f"{seconds // size} {word}"
    return f"{seconds // (365 * 86400)} years"
