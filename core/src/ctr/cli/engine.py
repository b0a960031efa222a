"""Opens the engine for a command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ctr.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctr.cli.main import Cli
    from ctr.program import Operation
    from ctr.timing import Timeline


def open_engine(cli: Cli, timeline: Timeline | None = None) -> Engine:
    """The engine of the command's settings; ``CTR_LAUNCHER`` may name an executor."""
    trace: Callable[[Operation], None] | None = None
    if timeline and timeline.watching:
        trace = timeline.operation
    if cli.settings.debug:
        import logging

        log = logging.getLogger("ctr.launch")

        def tell(operation: Operation) -> None:
            log.debug("%s: %s", operation.by, operation.describe())

        trace = tell

    return Engine(
        cli.settings,
        cli.host,
        timeline=timeline,
        trace=trace,
        warn=cli.warn,
        launcher=os.environ.get("CTR_LAUNCHER", ""),
    )
