"""``ctr volume create|ls|inspect|rm|prune``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ctr import volumes
from ctr.cli.engine import open_engine
from ctr.cli.output import each, print_json, print_table
from ctr.errors import NotFoundError
from ctr.inspection import rfc3339
from ctr.parse import check_name, pairs

if TYPE_CHECKING:
    from ctr.cli.main import Cli


@click.group()
def volume() -> None:
    """Manage volumes."""


@volume.command()
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Set a label.")
@click.argument("name", required=False)
@click.pass_obj
def create(cli: Cli, name: str | None, label: tuple[str, ...]) -> None:
    """Create a volume; print its name."""
    wanted = check_name(name, "volume name") if name else os.urandom(32).hex()
    engine = open_engine(cli)
    volumes.create(engine.state, wanted, pairs(label, "--label"), anonymous=name is None)
    engine.close()
    click.echo(wanted)


@volume.command()
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.pass_obj
def ls(cli: Cli, quiet: bool) -> None:
    """List volumes."""
    engine = open_engine(cli)
    rows = engine.state.volumes()
    engine.close()
    if quiet:
        for row in rows:
            click.echo(row.name)
    else:
        print_table(["DRIVER", "VOLUME NAME"], [["local", row.name] for row in rows])


@volume.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(cli: Cli, names: tuple[str, ...]) -> None:
    """Print all that is known of volumes, as JSON."""
    engine = open_engine(cli)
    rows = {row.name: row for row in engine.state.volumes()}
    documents = []
    for name in names:
        if name not in rows:
            raise NotFoundError(f"cannot inspect volume {name}: no such volume")
        documents.append(
            {
                "CreatedAt": rfc3339(rows[name].created_ns),
                "Driver": "local",
                "Labels": rows[name].labels,
                "Mountpoint": volumes.data_folder(engine.state, name),
                "Name": name,
                "Scope": "local",
                "UsedBy": engine.state.volume_users(name),
            }
        )
    engine.close()
    print_json(documents)


@volume.command()
@click.option("-f", "--force", is_flag=True, help="One that does not exist is no error.")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def rm(cli: Cli, names: tuple[str, ...], force: bool) -> None:
    """Remove volumes."""
    engine = open_engine(cli)

    def remove(name: str) -> str:
        volumes.remove(engine.state, name, force=force)
        return name

    each([check_name(name, "volume name") for name in names], remove)
    engine.close()


@volume.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Named ones as well.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(cli: Cli, everything: bool, force: bool) -> None:
    """Remove the volumes that no container uses (anonymous ones)."""
    if not force:
        click.confirm("Remove unused volumes?", abort=True)
    engine = open_engine(cli)
    removed = volumes.prune(engine.state, everything=everything)
    engine.close()
    if removed:
        click.echo("Deleted Volumes:\n" + "\n".join(removed))
