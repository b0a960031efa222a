"""``python -m ctr`` is ``ctr``."""

from __future__ import annotations

from ctr.cli.main import main

if __name__ == "__main__":
    main()
