"""Opens the engine for a command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ctr.engine import Engine

if TYPE_CHECKING:
    from ctr.cli.main import Cli
    from ctr.program import Operation
    from ctr.timing import Timeline


def open_engine(cli: Cli, timeline: Timeline | None = None) -> Engine:
    """The engine of the command's settings; ``CTR_LAUNCHER`` may name an executor."""
    trace = None
    if cli.settings.debug:
        import logging

        log = logging.getLogger("ctr.launch")

        def trace(operation: Operation) -> None:
            log.debug("%s: %s", operation.by, operation.describe())

    return Engine(
        cli.settings,
        cli.host,
        timeline=timeline,
        trace=trace,
        warn=cli.warn,
        launcher=os.environ.get("CTR_LAUNCHER", ""),
    )
