"""``ctr plan run``: both parts of a start, printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ctr.cli.container_options import build, container_options

if TYPE_CHECKING:
    from ctr.cli.main import Cli
    from ctr.planning import Plan


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

    Nothing is touched.  What only the act can tell stands in angle brackets.
    """
    from ctr.cli.engine import open_engine
    from ctr.planning import plan_run

    engine = open_engine(cli)
    planned = plan_run(engine, image, command, build(values))
    click.echo(_json(planned) if form == "json" else _text(planned))
    engine.close()


run.exit_125 = True  # type: ignore[attr-defined]


def _text(planned: Plan) -> str:
    lines = ["Host steps (undone in reverse order):"]
    for number, step in enumerate(planned.steps, 1):
        lines.append(f"{number:4}  {step.name:<12}{step.describe}")
    lines += ["", "Launch program:", f"{'':6}{'SIDE':<12}{'BY':<18}OPERATION"]
    for number, operation in enumerate(planned.operations, 1):
        side = operation.side.name.lower()
        lines.append(f"{number:4}  {side:<12}{operation.by:<18}{operation.describe()}")
        if type(operation).__name__ == "Sync" and operation.describe().endswith("A"):
            lines += [f"{'':6}{'engine':<12}{'network':<18}{line}" for line in planned.attach]
    lines += ["", "Descriptor slots:"]
    lines += [f"{f'[{slot}]':>6}  {name}" for slot, name in enumerate(planned.slots)]
    return "\n".join(lines)


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
