"""``ctr system df|gc|prune``, ``ctr info``, ``ctr version``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ctr.cli.engine import open_engine
from ctr.cli.output import print_json, print_table

if TYPE_CHECKING:
    from ctr.cli.main import Cli
    from ctr.engine import Engine


@click.group()
def system() -> None:
    """Manage ctr's own state."""


@system.command()
@click.pass_obj
def gc(cli: Cli) -> None:
    """Release what no container needs; print what went.  Running ones are not touched."""
    from ctr import recovery

    engine = open_engine(cli)
    for line in recovery.gc(engine):
        click.echo(line)
    engine.close()


@system.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def df(cli: Cli, form: str) -> None:
    """Show disk usage."""
    from ctr.usage import disk_usage, human

    engine = open_engine(cli)
    rows = disk_usage(engine)
    engine.close()
    if form == "json":
        print_json([row._asdict() for row in rows])
    else:
        print_table(
            ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"],
            [
                [row.type, str(row.total), str(row.active), human(row.size), human(row.reclaimable)]
                for row in rows
            ],
        )


@system.command()
@click.option("-a", "--all", "everything", is_flag=True, help="All unused images.")
@click.option("--volumes", is_flag=True, help="Unused anonymous volumes as well.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(cli: Cli, everything: bool, volumes: bool, force: bool) -> None:
    """Remove stopped containers, unpacked layers that no image needs, and leftovers."""
    from ctr import recovery
    from ctr import volumes as store
    from ctr.errors import NotFoundError

    if not force:
        click.confirm("Remove all stopped containers and unused data?", abort=True)
    engine = open_engine(cli)
    for row in engine.containers():
        if row.state not in ("running", "paused", "creating"):
            engine.remove(row.id, volumes=volumes)
            click.echo(f"container {row.id}")
    if everything:
        used = {row.spec["image_id"] for row in engine.containers()}
        for image in engine.content.images():
            if image.id not in used:
                try:
                    engine.content.remove(image.reference)
                except NotFoundError:
                    continue
                click.echo(f"image {image.reference}")
    if volumes:
        for name in store.prune(engine.state, everything=False):
            click.echo(f"volume {name}")
    for line in recovery.gc(engine):
        click.echo(line)
    engine.close()


@click.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@click.pass_obj
def info(cli: Cli, form: str) -> None:
    """Describe this installation and its machine."""
    engine = open_engine(cli)
    facts = _info(engine)
    engine.close()
    if form == "json":
        print_json(facts)
        return
    for key, value in facts.items():
        click.echo(f"{key}: {value}")


def _info(engine: Engine) -> dict[str, object]:
    from ctr import __version__

    states = [row.state for row in engine.containers()]
    uname = os.uname()
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    return {
        "Containers": len(states),
        "Running": states.count("running"),
        "Paused": states.count("paused"),
        "Stopped": len(states) - states.count("running") - states.count("paused"),
        "Images": len(list(engine.content.images())),
        "Server Version": __version__,
        "Storage Driver": engine.chosen("storage"),
        "Network Driver": engine.chosen("network"),
        "Cgroup Driver": engine.chosen("cgroup"),
        "Launcher": engine.launcher,
        "Kernel Version": uname.release,
        "Architecture": uname.machine,
        "CPUs": os.cpu_count(),
        "Total Memory": memory,
        "Root Dir": engine.settings.root,
        "Run Root Dir": engine.settings.run_root,
    }


@click.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@click.pass_obj
def version(cli: Cli, form: str) -> None:
    """Print versions: of ctr, its protocols, Python and the kernel."""
    import platform

    from ctr import __version__, encoding
    from ctr.drivers import API
    from ctr.launcher import protocol

    facts = {
        "Version": __version__,
        "Driver API": API,
        "Launch program": encoding.VERSION,
        "Launcher protocol": protocol.VERSION,
        "Python": platform.python_version(),
        "Kernel": platform.release(),
        "Architecture": platform.machine(),
    }
    if form == "json":
        print_json(facts)
        return
    for key, value in facts.items():
        click.echo(f"{key + ':':<20}{value}")
