"""Makes an image of a root file system: a folder, or a tar."""

from __future__ import annotations

import functools
import os
import stat
import time
from typing import TYPE_CHECKING, Any

from ctr.errors import ImageError, InvalidError
from ctr.images.build_image import architecture, publish
from ctr.images.compression import FileStream, Gunzip, decompressed
from ctr.images.manifest import OCI_LAYER, Descriptor
from ctr.images.tar import Limits, MalformedError, TarReader

if TYPE_CHECKING:
    from ctr.images.ingest import Ingest, Readable, Writer
    from ctr.images.reference import Reference
    from ctr.images.store import ContentStore, Image

STDIN = "-"


def import_rootfs(
    store: ContentStore, source: str, reference: Reference, *, limits: Limits | None = None
) -> Image:
    """Make an image of one layer from a root file system, and name it ``reference``.

    ``source`` is a folder, a tar, plain or compressed by gzip, or ``-`` for standard input.
    Raises InvalidError when it can't be opened, ImageError when it is no such thing.
    """
    limits = limits or Limits()
    with store.ingest() as ingest:
        if source != STDIN and os.path.isdir(source):
            from ctr.images.build_layer import folder_members, write_layer

            digest, size = ingest.add_made(
                functools.partial(write_layer, folder_members(source)), limit=limits.size
            )
            layer, diff_id = Descriptor(OCI_LAYER, digest, size), digest
        else:
            layer, diff_id = _import_tar(ingest, source, limits)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        config: dict[str, Any] = {
            "architecture": architecture(),
            "os": "linux",
            "created": created,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": created, "comment": "imported"}],
        }
        publish(ingest, config, [layer], [str(reference)])
    return store.resolve(str(reference))


def open_source(source: str) -> int:
    """Open what the user named; ``-`` is standard input.  Raises InvalidError."""
    try:
        fd = os.dup(0) if source == STDIN else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidError(
            f"cannot read {source!r}: {error.strerror}", hint="give a file, a folder, or -"
        ) from error
    if stat.S_ISCHR(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidError(
            f"cannot read {called(source)}: it is a terminal or another device",
            hint="give a file, a folder, or - with standard input redirected",
        )
    return fd


def called(source: str) -> str:
    """A source in messages."""
    return "standard input" if source == STDIN else repr(source)


def _import_tar(ingest: Ingest, source: str, limits: Limits) -> tuple[Descriptor, str]:
    """Take the tar in as it is, and read it through to see that it is one."""
    diff_id, media_type = "", OCI_LAYER
    fd = open_source(source)

    def copy(write: Writer) -> None:
        nonlocal diff_id, media_type
        stream = decompressed(_Tee(FileStream(fd), write))
        reader = TarReader(stream, limits)
        if sum(1 for _ in reader) == 0:
            raise MalformedError("there is nothing in it")
        diff_id = reader.diff_id
        if isinstance(stream, Gunzip):
            media_type = f"{OCI_LAYER}+gzip"

    try:
        digest, size = ingest.add_made(copy, limit=limits.size)
    except MalformedError as error:
        raise ImageError(
            f"cannot import {called(source)}: {error}",
            hint="it must be a folder or a tar, plain or compressed by gzip",
        ) from None
    finally:
        os.close(fd)
    return Descriptor(media_type, digest, size), diff_id


class _Tee:
    """A stream that also writes what is read from it."""

    def __init__(self, stream: Readable, write: Writer) -> None:
        self._stream = stream
        self._write = write

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._write(data)
        return data
