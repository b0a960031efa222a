"""What a supervisor executes in its own place when its container ended and nobody watches.

``python -m ctr.cleanup ROOT RUN_ROOT ID``: records the exit, releases what was held, and
removes a container that was started with ``--rm``.
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    """See to the container's end; exit status 1 with a message when that fails."""
    from ctr import config
    from ctr.engine import Engine
    from ctr.errors import CtrError
    from ctr.plugins import PluginHost

    root, run_root, container = argv
    try:
        import os

        settings = config.load({"root": root, "run_root": run_root}, os.environ)
        engine = Engine(settings, PluginHost())
        engine.finish(container)
        engine.close()
    except (CtrError, ExceptionGroup) as error:
        print(f"ctr: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
