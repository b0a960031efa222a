"""How commands print: tables as docker prints them, and JSON."""

from __future__ import annotations

import sys
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
