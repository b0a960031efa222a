"""The write-ahead journal of one container, a file of JSON lines.

``<root>/journal/ID`` is an operation under way: its process holds flock(2) on it.  The
file is renamed to ``<root>/held/ID`` when the operation is complete; it then tells what the
container holds, and taking down begins by renaming it back.  So whatever lies unlocked in
``journal/`` is the work of a process that died, and finding it costs one listdir.

"On disk" is write(2): a crash of ours is survived without fsync; after a crash of the
machine the boot id tells that nothing of it is left but files.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ctr.errors import ConflictError, StateError
from ctr.lifecycle import Entry

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class MemoryJournal:
    """A journal for tests and for what need not outlive the process."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def begin(self, entry: Entry) -> None:
        """See ctr.lifecycle.Journal."""
        self._entries.append(entry)

    def end(self, entry: Entry) -> None:
        """See ctr.lifecycle.Journal."""
        index = len(self._entries) - 1 - self._entries[::-1].index(entry)
        del self._entries[index]

    def begun(self) -> list[Entry]:
        """See ctr.lifecycle.Journal."""
        return list(self._entries)


class FileJournal:
    """A container's journal, locked for as long as the object is open (a context manager)."""

    def __init__(self, root: str, container: str, descriptor: int) -> None:
        self._open_path = os.path.join(root, "journal", container)
        self._held_path = os.path.join(root, "held", container)
        self._descriptor = descriptor
        self._entries = _read(descriptor)

    @classmethod
    def create(cls, root: str, container: str) -> Self:
        """Begin an operation that makes ``container``.  Raises ConflictError if it exists."""
        path = os.path.join(root, "journal", container)
        hidden = os.path.join(root, "journal", f".{container}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            descriptor = os.open(hidden, flags, 0o600)
        except FileExistsError:
            raise ConflictError(f"cannot create container {container}: it exists") from None
        except OSError as error:
            raise StateError(f"cannot write {path}: {error.strerror}") from error
        # Locked before it can be seen, or another process would take it for abandoned.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.rename(hidden, path)
        return cls(root, container, descriptor)

    @classmethod
    def resume(cls, root: str, container: str, *, wait: bool = False) -> Self | None:
        """Take over a container's journal, wherever it lies.

        Returns None when there is none, or (unless ``wait``) when another process has it.
        """
        # Twice: it may be renamed back and forth while we look.
        for folder in ("held", "journal", "held"):
            path = os.path.join(root, folder, container)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if os.fstat(descriptor).st_nlink:  # not finished while we waited
                    return cls(root, container, descriptor)
            except BlockingIOError:
                pass
            os.close(descriptor)
            return None
        return None

    def begin(self, entry: Entry) -> None:
        """See ctr.lifecycle.Journal."""
        self._append({"begin": entry.step, "record": entry.record})
        self._entries.append(entry)

    def end(self, entry: Entry) -> None:
        """See ctr.lifecycle.Journal."""
        index = len(self._entries) - 1 - self._entries[::-1].index(entry)
        self._append({"end": index})
        del self._entries[index]

    def begun(self) -> list[Entry]:
        """See ctr.lifecycle.Journal."""
        return list(self._entries)

    def reopen(self) -> None:
        """Say that an operation is under way again (before the first undo)."""
        self._rename(self._held_path, self._open_path)

    def hold(self) -> None:
        """Say that the operation is complete: the container holds what is on record."""
        self._rename(self._open_path, self._held_path)

    def discard(self) -> None:
        """Remove the journal: the container holds nothing.  Raises StateError if it does."""
        if self._entries:
            raise StateError(f"cannot drop {self._open_path}: steps are still on record")
        for path in (self._open_path, self._held_path):
            with suppress(FileNotFoundError):
                os.unlink(path)

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, line: dict[str, object]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        if os.write(self._descriptor, data) != len(data):
            raise StateError(f"cannot write {self._open_path}: the disk is full")

    def _rename(self, source: str, target: str) -> None:
        try:
            os.rename(source, target)
        except FileNotFoundError:
            if not os.path.exists(target):
                raise


def unfinished(root: str) -> list[str]:
    """The containers with an operation under way or broken off."""
    return [name for name in os.listdir(os.path.join(root, "journal")) if name[0] != "."]


def held(root: str) -> list[str]:
    """The containers that hold something."""
    return os.listdir(os.path.join(root, "held"))


def peek(root: str, container: str) -> list[Entry]:
    """What is on record for a container, without taking its journal over."""
    for folder in ("held", "journal", "held"):
        try:
            with open(os.path.join(root, folder, container), "rb") as file:
                return _entries(file.read())
        except FileNotFoundError:
            continue
    return []


def _read(descriptor: int) -> list[Entry]:
    """Entries on record; a torn last line is a step that was never begun, and is cut off."""
    data = b""
    while chunk := os.pread(descriptor, 1 << 16, len(data)):
        data += chunk
    complete = data.rfind(b"\n") + 1
    if complete != len(data):
        os.ftruncate(descriptor, complete)
    return _entries(data)


def _entries(data: bytes) -> list[Entry]:
    entries: list[Entry] = []
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        value = json.loads(line)
        if "begin" in value:
            entries.append(Entry(value["begin"], value["record"]))
        else:
            del entries[value["end"]]
    return entries
