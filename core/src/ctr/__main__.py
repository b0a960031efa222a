"""The ``ctr`` command (``python -m ctr`` is the same)."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

# A command lives for some hundredths of a second: collecting what importing allocates costs
# five milliseconds of them and frees nothing.
gc.disable()


def main() -> NoReturn:
    """Run the command line and leave without the interpreter's tear-down (5-10 ms).

    The database is left as after a crash, on purpose: the last close of one in WAL mode
    writes it back with an fsync (4-11 ms), which every 200th page does instead.
    """
    import atexit

    from ctr.cli.main import run

    status = run(sys.argv[1:])
    atexit._run_exitfuncs()  # noqa: SLF001  logging's, a coverage measurement's
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = status or 141
    os._exit(status)


if __name__ == "__main__":
    main()
