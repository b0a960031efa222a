"""``ctr plugin``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ctr.cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.cli.main import Cli
    from ctr.plugin_index import Plugin


@click.group()
def plugin() -> None:
    """Manage plugins; they are installed and removed with pip."""


@plugin.command("ls")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def list_(cli: Cli, form: str) -> None:
    """List the plugins, the broken ones included."""
    _print(cli.host.plugins(), form)


@plugin.command()
@click.pass_obj
def refresh(cli: Cli) -> None:
    """Build the index of plugins anew.

    Installing and uninstalling does that by itself; this is for what changes in other ways.
    """
    _print(cli.host.refresh(), "table")


@plugin.command()
@click.argument("name")
@click.pass_obj
def inspect(cli: Cli, name: str) -> None:
    """Print all about one plugin, as JSON."""
    from ctr.errors import NotFoundError

    found = [plugin for plugin in cli.host.plugins() if plugin.name == name]
    if not found:
        known = ", ".join(plugin.name for plugin in cli.host.plugins())
        raise NotFoundError(
            f"cannot find plugin {name!r}: installed: {known or 'none'}",
            hint="plugins are installed with pip",
        )
    print_json([_record(cli, plugin) for plugin in found])


@plugin.command()
@click.argument("name")
@click.option(
    "-C", "--directory", default=".", metavar="DIR", help="Where to make it.  [default: .]"
)
def new(name: str, directory: str) -> None:
    """Make the project of a new storage driver, ctr-storage-NAME.

    It works as it is; change it step by step while its tests pass.
    """
    from ctr.plugin_template import generate

    project = generate(name, directory)
    click.echo(f"made {project}; next: pip install -e '{project}[test]' && ctr drivers")


def _print(plugins: Iterable[Plugin], form: str) -> None:
    if form == "json":
        print_json([plugin._asdict() | {"status": _status(plugin)} for plugin in plugins])
        return
    print_table(
        ("NAME", "DISTRIBUTION", "VERSION", "STATUS", "HOOKS"),
        [
            (
                plugin.name,
                plugin.distribution,
                plugin.version,
                _status(plugin),
                plugin.error or ", ".join(plugin.hooks),
            )
            for plugin in plugins
        ],
    )


def _status(plugin: Plugin) -> str:
    return "broken" if plugin.error else "ok"


def _record(cli: Cli, plugin: Plugin) -> dict[str, Any]:
    from ctr import options

    drivers = []
    for kind, name in plugin.drivers:
        info = cli.host.driver(kind, name).info
        drivers.append(
            {
                "kind": kind,
                "name": name,
                "summary": info.summary,
                "api": info.api,
                "capabilities": sorted(info.capabilities),
                "options": options.describe(name, info.options),
            }
        )
    return plugin._asdict() | {"status": _status(plugin), "drivers": drivers}
