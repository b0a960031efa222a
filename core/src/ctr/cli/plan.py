"""``ctr plan run``: both parts of a start, printed."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from ctr.cli.container_options import build, container_options
from ctr.operations import Sync

if TYPE_CHECKING:
    from ctr.cli.main import Cli
    from ctr.planning import Plan
    from ctr.program import Operation, Side


@click.group()
def plan() -> None:
    """Print what a command would do, without doing it."""


@plan.command(context_settings={"allow_interspersed_args": False})
@container_options
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(cli: Cli, /, image: str, command: tuple[str, ...], form: str, **values: Any) -> None:
    """Print the host steps and the launch program of `ctr run`.

    Nothing is touched.  What only the act can tell stands in angle brackets.  Neighbours of
    one kind share a row; with --format json each operation is told alone, with its fields.
    """
    from ctr.cli.engine import open_engine
    from ctr.planning import plan_run

    engine = open_engine(cli)
    planned = plan_run(engine, image, command, build(values))
    click.echo(_json(planned) if form == "json" else _text(planned))
    engine.close()


def _text(planned: Plan) -> str:
    def told(text: str) -> str:  # the next run has another ID: what only the act can tell
        return text.replace(planned.spec.id, "<id>").replace(planned.spec.id[:12], "<short id>")

    lines = ["Host steps (undone in reverse order):"]
    for number, step in enumerate(planned.steps, 1):
        lines.append(f"{number:5}  {step.name:<12}{told(step.describe)}")
    lines += ["", "Launch program:", f"{'':7}{'SIDE':<12}{'BY':<18}OPERATION"]
    number = 1
    for (kind, side, by), group in groupby(planned.operations, _alike):
        texts = [told(operation.describe()) for operation in group]
        last = number + len(texts) - 1
        numbers = f"{number}-{last}" if len(texts) > 1 else str(number)
        lines += _row(f"{numbers:>5}", side.name.lower(), by, _together(texts))
        if kind is Sync and texts[-1].endswith("A"):
            for line in planned.attach:
                lines += _row(f"{'':5}", "engine", "network", line)
        number = last + 1
    lines += ["", "Descriptor slots:"]
    lines += [f"{f'[{slot}]':>6}  {told(name)}" for slot, name in enumerate(planned.slots)]
    return "\n".join(lines)


def _alike(operation: Operation) -> tuple[type[Operation], Side, str]:
    """What neighbours must have in common to share a row."""
    return type(operation), operation.side, operation.by


def _row(numbers: str, side: str, by: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        width=120,
        initial_indent=f"{numbers}  {side:<12}{by:<18}",
        subsequent_indent=f"{'':37}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _together(texts: list[str]) -> str:
    """Say what differs once each, between the words that all begin and end with."""
    rows = [text.split(" ") for text in texts]
    shortest = min(map(len, rows))
    head = tail = 0
    while head < shortest - 1 and len({row[head] for row in rows}) == 1:
        head += 1
    while tail < shortest - 1 - head and len({row[-1 - tail] for row in rows}) == 1:
        tail += 1
    first = rows[0]
    end = len(first) - tail
    different = ", ".join(" ".join(row[head : len(row) - tail]) for row in rows)
    return " ".join([*first[:head], different, *first[end:]])


def _json(planned: Plan) -> str:
    import json

    return json.dumps(
        {
            "container": planned.spec.id,
            "steps": [
                {"name": step.name, "describe": step.describe, "record": step.record}
                for step in planned.steps
            ],
            "attach": planned.attach,
            "operations": [
                {
                    "operation": type(operation).__name__,
                    "by": operation.by,
                    "phase": operation.phase.name,
                    "side": operation.side.name.lower(),
                    "describe": operation.describe(),
                    "fields": {
                        name: value.hex() if isinstance(value, bytes) else value
                        for name, value in operation.items()
                    },
                }
                for operation in planned.operations
            ],
            "slots": planned.slots,
        },
        indent=2,
    )
