"""The options of storage driver ``overlay`` (``--storage-opt KEY=VALUE``)."""

from __future__ import annotations

import attrs


@attrs.frozen
class Options:
    """See the README for what each changes."""

    metacopy: bool = attrs.field(
        default=False,
        metadata={
            "help": "a chown or chmod copies a file's metadata only, and folders of the image "
            "can be renamed; for snapshots made from now on"
        },
    )
