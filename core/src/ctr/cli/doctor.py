"""``ctr doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ctr.cli.output import print_json, table

if TYPE_CHECKING:
    from ctr.cli.main import Cli

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def doctor(cli: Cli, form: str) -> int:
    """Check what this machine can do, and say how to mend what it can't.

    Exits 1 when a container with the default drivers can't run.
    """
    from ctr.doctor import OK, PROBLEM, examine

    checks = list(examine(cli.settings, cli.host))
    problems = [check for check in checks if check.status == PROBLEM]
    if form == "json":
        print_json([check._asdict() for check in checks])
        return 1 if problems else 0
    rows = [(check.status, check.section, check.name, check.detail) for check in checks]
    lines = table(("STATUS", "AREA", "CHECK", "FOUND"), rows).splitlines()
    click.echo(lines[0])
    for check, line in zip(checks, lines[1:], strict=True):
        # The colour says nothing that the word doesn't; it goes where there is no terminal.
        click.echo(click.style(check.status, _COLOURS[check.status]) + line[len(check.status) :])
    remedies = [check for check in checks if check.status != OK and check.remedy]
    for check in remedies:
        click.echo(f"{check.status}: {check.name}: {check.remedy}")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        click.echo(f"{count}: containers can't run with these settings")
        return 1
    click.echo("containers can run with the default drivers")
    return 0
