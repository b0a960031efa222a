"""``ctr drivers``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ctr.cli.output import print_json, print_table

if TYPE_CHECKING:
    from ctr.cli.main import Cli


@click.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def drivers(cli: Cli, form: str) -> None:
    """List the drivers, whether each can work here, and who offers it."""
    from ctr import options
    from ctr.drivers import KINDS
    from ctr.errors import NotFoundError

    records = []
    for kind in KINDS:
        default = None
        if kind != "namespace":
            try:
                default = cli.host.choose(kind, cli.settings).info.name
            except NotFoundError as error:
                cli.warn(error.message)
        for name, offer in cli.host.drivers(kind).items():
            probe = cli.host.probe(offer, cli.settings)
            record: dict[str, Any] = {
                "kind": kind,
                "driver": name,
                "default": name == default,
                "usable": probe.ok,
                "reason": probe.reason,
                "hint": probe.hint,
                "distribution": offer.distribution,
                "version": offer.version,
                "plugin": offer.plugin,
                "summary": offer.info.summary,
                "capabilities": sorted(offer.info.capabilities),
            }
            if form == "json":
                record["options"] = options.describe(name, offer.info.options)
            records.append(record)
    if form == "json":
        print_json(records)
        return
    print_table(
        ("KIND", "DRIVER", "DEFAULT", "USABLE", "DISTRIBUTION", "VERSION", "REASON"),
        [
            (
                record["kind"],
                record["driver"],
                "yes" if record["default"] else "",
                "yes" if record["usable"] else "no",
                record["distribution"],
                record["version"],
                record["reason"],
            )
            for record in records
        ],
    )
