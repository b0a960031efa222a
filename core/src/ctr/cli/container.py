"""``ctr container ls|rm|inspect`` (``ps``, ``rm`` and ``inspect`` at the top)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ctr.cli.output import ago, each, print_table

if TYPE_CHECKING:
    from ctr.cli.main import Cli
    from ctr.state import ContainerRow


@click.command("ls")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("-q", "--quiet", is_flag=True, help="IDs only.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.pass_obj
def ls(cli: Cli, everything: bool, quiet: bool, no_trunc: bool) -> None:
    """List containers."""
    from ctr.cli.engine import open_engine

    engine = open_engine(cli)
    rows = [row for row in engine.containers() if everything or row.state in ("running", "paused")]
    engine.close()
    width = 64 if no_trunc else 12
    if quiet:
        for row in rows:
            click.echo(row.id[:width])
        return
    header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    print_table(
        header,
        [
            [
                row.id[:width],
                row.image,
                _command(row, no_trunc=no_trunc),
                f"{ago(row.created_ns)} ago",
                _status(row),
                "",
                row.name,
            ]
            for row in rows
        ],
    )


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="Kill a running one; leave what can't be undone.")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes as well.")
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def rm(cli: Cli, containers: tuple[str, ...], force: bool, volumes: bool) -> None:
    """Remove containers."""
    from ctr.cli.engine import open_engine

    engine = open_engine(cli)

    def remove(reference: str) -> str:
        engine.remove(reference, force=force, volumes=volumes)
        return reference

    try:
        each(containers, remove)
    finally:
        engine.close()


@click.command("inspect")
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def inspect(cli: Cli, containers: tuple[str, ...]) -> None:
    """Print all that is known of containers, as JSON."""
    import json

    from ctr.cli.engine import open_engine
    from ctr.inspection import describe

    engine = open_engine(cli)
    try:
        documents = [describe(engine, engine.container(reference)) for reference in containers]
    finally:
        engine.close()
    click.echo(json.dumps(documents, indent=4))


def _command(row: ContainerRow, *, no_trunc: bool) -> str:
    text = " ".join(row.spec["argv"])
    text = text if no_trunc or len(text) <= 20 else f"{text[:19]}…"
    return f'"{text}"'


def _status(row: ContainerRow) -> str:
    if row.state == "running":
        return f"Up {ago(row.started_ns)}"
    if row.state == "exited":
        return f"Exited ({row.exit_code}) {ago(row.finished_ns)} ago"
    return row.state.capitalize()
