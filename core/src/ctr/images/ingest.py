"""Blobs on their way into the content store, and the names that publish them.

An ``Ingest`` writes into a folder of its own below ``ingest/``, on which it holds a flock:
nothing is visible before ``commit``, nothing is left when it fails, and what a killed
process left is recognised by the lock that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from typing import TYPE_CHECKING, Protocol, Self

from ctr.errors import DigestError, ImageError, StateError
from ctr.images import digest as digests
from ctr.images.files import Lock, sync_folder
from ctr.images.store import put

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ctr.images.store import ContentStore, Entry

    Writer = Callable[[bytes], object]

_CHUNK = 1 << 20


class Readable(Protocol):
    """A stream: ``read`` returns at most ``size`` bytes, none at the end only."""

    def read(self, size: int, /) -> bytes: ...


class Ingest:
    """A transaction of blobs; use it as a context manager, which drops what is not committed."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._lock = os.path.join(store.root, "index.lock")
        self._folder = ""
        self._fd = -1
        self._staged: set[str] = set()

    def __enter__(self) -> Self:
        name = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._folder = os.path.join(self._store.root, "ingest", name)
        with Lock(self._lock):  # `sweep` must not come between the next three lines
            try:
                os.mkdir(self._folder, 0o700)
                self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            except OSError as error:
                raise StateError(f"cannot write {self._folder}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._fd)

    def add(self, data: bytes) -> tuple[str, int]:
        """Take in a small blob; return its digest and size."""
        digest = digests.of_bytes(data)
        self._write(digest, lambda write: write(data))
        return digest, len(data)

    def add_stream(
        self, stream: Readable, *, limit: int, digest: str = "", size: int = -1
    ) -> tuple[str, int]:
        """Take in a blob of at most ``limit`` bytes; return its digest and size.

        Raises DigestError when it is not the ``digest`` and ``size`` that were promised,
        ImageError beyond the limit.
        """

        def copy(write: Writer) -> None:
            while chunk := stream.read(_CHUNK):
                write(chunk)

        return self.add_made(
            copy, limit=limit if size < 0 else min(limit, size), digest=digest, size=size
        )

    def add_made(
        self, make: Callable[[Writer], None], *, limit: int, digest: str = "", size: int = -1
    ) -> tuple[str, int]:
        """``add_stream`` for a blob that ``make`` writes by calling what it is given."""
        found = digests.hasher()
        total = 0

        def fill(write: Writer) -> None:
            def count(data: bytes) -> None:
                nonlocal total
                total += len(data)
                if total > limit:
                    raise ImageError(
                        f"cannot take in {digest or 'a blob'}: it is larger than {limit} bytes"
                    )
                found.update(data)
                write(data)

            make(count)

        self._write("", fill)
        actual = f"sha256:{found.hexdigest()}"
        if digest not in ("", actual) or size not in (-1, total):
            raise DigestError(
                f"cannot take in {digest or 'a blob'}: its content is {actual}, {total} bytes"
            )
        os.rename(self._path("new"), self._path(actual))
        self._staged.add(actual)
        return actual, total

    def open(self, digest: str) -> int:
        """Open a blob that was taken in; return the descriptor."""
        return os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC)

    def retain(self, needed: Collection[str]) -> None:
        """Forget every other blob."""
        for digest in self._staged.difference(needed):
            os.unlink(self._path(digest))
        self._staged.intersection_update(needed)

    def commit(self, entries: Sequence[Entry]) -> None:
        """Publish every blob and the names.  Durable on return.  Raises StateError."""
        try:
            for digest in self._staged:
                fd = self.open(digest)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            with Lock(self._lock):
                for digest in self._staged:
                    # Also over one that is there: it may be damaged, this one is not.
                    os.rename(self._path(digest), self._store.path(digest))
                sync_folder(os.path.join(self._store.root, "blobs", "sha256"))
                self._store.change_locked(lambda known: _put_all(known, entries))
        except OSError as error:
            raise StateError(f"cannot write {self._store.root}: {error.strerror}") from error
        self._staged.clear()

    def _path(self, digest: str) -> str:
        return os.path.join(self._folder, digest.removeprefix("sha256:"))

    def _write(self, digest: str, fill: Callable[[Writer], object]) -> None:
        path = self._path(digest or "new")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", buffering=_CHUNK) as file:
                fill(file.write)
        except OSError as error:
            raise StateError(f"cannot write {path}: {error.strerror}") from error
        if digest:
            self._staged.add(digest)


def _put_all(known: list[Entry], entries: Sequence[Entry]) -> list[Entry]:
    for entry in entries:
        known = put(known, entry)
    return known


def sweep(root: str) -> None:
    """Remove what transactions left that died.  The caller holds the index lock."""
    folder = os.path.join(root, "ingest")
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # a transaction that ended since, which needs no lock
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(fd)
