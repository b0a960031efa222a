"""Undoes steps from their journal entries alone, in whatever process that happens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ctr import supervision
from ctr.errors import CtrError, DriverError, NotFoundError, StateError
from ctr.models import Endpoint, Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctr.engine import Engine
    from ctr.lifecycle import Entry

    Record = dict[str, Any]

#: How long a supervisor that was told to end may take, in seconds.
PATIENCE = 10.0


class Undo:
    """Calls the undo of an entry's step for one container.  Each is idempotent.

    ``force``: what a driver that is not installed holds is left behind, with a warning.
    ``keep_volumes``: anonymous volumes outlive the container (``rm`` without ``-v``).
    """

    def __init__(
        self, engine: Engine, container: str, *, force: bool = False, keep_volumes: bool = False
    ) -> None:
        self.engine = engine
        self.container = container
        self.force = force
        self.keep_volumes = keep_volumes

    def __call__(self, entry: Entry) -> None:
        """Undo one step.  Raises whatever its driver raises."""
        undo: Callable[[Record], None] = getattr(self, f"_undo_{entry.step.replace('-', '_')}")
        try:
            undo(entry.record)
        except CtrError:
            raise
        except Exception as error:  # whatever a driver raises
            driver = entry.record.get("driver", "core")
            raise DriverError(f"cannot undo {entry.step} ({driver}): {error}") from error

    def _driver(self, record: Record) -> Any:
        """The driver that an entry names; None when it is gone and ``force`` is on."""
        kind, name = record["kind"], record["driver"]
        try:
            return self.engine.driver(kind, name)
        except (NotFoundError, DriverError) as error:
            left = os.path.join(self.engine.settings.root, kind, name)
            if self.force:
                self.engine.warn(
                    f"{kind} driver {name} is not usable: what it holds for {self.container[:12]} "
                    f"is left in {left}"
                )
                return None
            raise DriverError(
                f"cannot release what {kind} driver {name} holds: {error}",
                hint=f"install {record['distribution']} again, or `ctr rm -f`, which leaves {left}",
            ) from error

    def _undo_record(self, record: Record) -> None:
        self.engine.state.drop_container(self.container)

    def _undo_folders(self, record: Record) -> None:
        for folder in (
            self.engine.run_folder(self.container),
            self.engine.container_folder(self.container),
        ):
            try:
                _remove_folder(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StateError(f"cannot remove {folder}: {error.strerror}") from error

    def _undo_volumes(self, record: Record) -> None:
        from ctr import volumes

        self.engine.state.release_volumes(self.container)
        if not self.keep_volumes:
            for name in record["names"]:
                volumes.remove(self.engine.state, name, force=True)

    def _undo_snapshot(self, record: Record) -> None:
        driver = self._driver(record)
        if driver is not None:
            driver.remove(record["key"])

    _undo_volume_copy = _undo_snapshot

    def _undo_cgroup(self, record: Record) -> None:
        driver = self._driver(record)
        if driver is not None:
            driver.remove(record["group"])

    def _undo_address(self, record: Record) -> None:
        self.engine.state.release_addresses(self.container)

    def _undo_endpoint(self, record: Record) -> None:
        driver = self._driver(record)
        if driver is not None:
            driver.detach(Network(*record["network"]), Endpoint(*record["endpoint"]))

    def _undo_supervisor(self, record: Record) -> None:
        """Wait for the supervisor's end: it ends by itself when the engine died or it is done."""
        run_dir = self.engine.run_folder(self.container)
        status = supervision.read_status(run_dir)
        if not status.exited and not supervision.wait_until_dead(run_dir, PATIENCE):
            raise StateError(
                f"cannot release container {self.container[:12]}: its supervisor still runs",
                hint="`ctr rm -f` ends it",
            )


def _remove_folder(path: str) -> None:
    """Remove a folder that holds only files (shutil.rmtree costs 7 ms to import)."""
    with os.scandir(path) as entries:
        for entry in entries:
            os.unlink(entry.path)
    os.rmdir(path)
