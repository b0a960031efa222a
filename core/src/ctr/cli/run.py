"""``ctr run`` and ``ctr container run``."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ctr.cli.container_options import build, container_options
from ctr.cli.main import Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from ctr.cli.main import Cli
    from ctr.timing import Timeline


@click.command(cls=Command, context_settings={"allow_interspersed_args": False})
@container_options
@click.option("--timing", is_flag=True, help="Print where each millisecond went.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(cli: Cli, /, image: str, command: tuple[str, ...], timing: bool, **values: Any) -> int:
    """Create and run a container, and wait for its end."""
    from ctr.timing import Timeline

    timeline = Timeline()
    if timing:
        timeline.watch()
    options = build(values)
    from ctr.cli.engine import open_engine
    from ctr.relay import Streams, relay

    engine = open_engine(cli, timeline)
    with _stop_signals():
        spec, found = engine.specify(image, command, options)
        timeline.mark("settle")
        with Streams(stdin=options.stdin) as streams:
            running = engine.start(spec, found, streams.ends)
            streams.started()
            ended = relay(running.supervisor, streams)
    timeline.mark("container ran")
    engine.finish(spec.id, ended)
    running.supervisor.done()
    timeline.mark("clean up")
    if ended.oom:
        cli.warn(f"container {spec.name} was killed: out of memory (limit: --memory)")
    if timing:
        _print(timeline)
    return ended.status


run.exit_125 = True  # type: ignore[attr-defined]


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Until the relay takes over, SIGTERM and SIGHUP roll back as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    old = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _print(timeline: Timeline) -> None:
    for line in timeline.waterfall():
        click.echo(line, err=True)
