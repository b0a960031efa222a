"""Laws of storage drivers: many processes at once, a full disk, SIGKILL at every point."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from ctr.drivers import DriverContext, DriverInfo, StorageDriver
from ctr.errors import ConflictError, CtrError
from ctr.testing.storage_support import (
    MAPPED,
    OPTIONS,
    Child,
    StorageFixtures,
    in_child,
    inodes,
    killed_at,
    layer,
    mounted,
    read,
    viewed,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class TroubleLaws(StorageFixtures):
    """A verb is done or not done, never half, whatever else happens."""

    def test_one_key_goes_to_one_process(
        self, info: DriverInfo[StorageDriver], context: DriverContext, driver: StorageDriver
    ) -> None:
        """Eight processes prepare their own keys and race for one: all end well, one has it."""
        with layer(driver, "base") as root:
            write(f"{root}/file", "base")
        os.mkdir(context.run_root)

        def work(number: int) -> None:
            mine = info.factory(context)
            for turn in range(5):
                with mounted(mine.prepare(f"own-{number}-{turn}", "base", OPTIONS)) as root:
                    assert read(f"{root}/file") == "base"
                with contextlib.suppress(ConflictError):
                    mine.prepare(f"shared-{turn}", "base", OPTIONS)
                    os.mkdir(f"{context.run_root}/{turn}")  # fails for a second winner
                mine.commit(f"done-{number}-{turn}", f"own-{number}-{turn}")
                if turn % 2:
                    mine.remove(f"done-{number}-{turn}")

        children = [Child(lambda number=number: work(number)) for number in range(8)]  # type: ignore[misc]
        for child in children:
            assert child.wait() == 0, child.output
        keys = {one.key for one in driver.walk()}
        assert len(os.listdir(context.run_root)) == 5
        assert {key for key in keys if key.startswith("shared")} == {
            f"shared-{turn}" for turn in range(5)
        }
        assert len([key for key in keys if key.startswith("done")]) == 8 * 3

    def test_a_full_disk(self, info: DriverInfo[StorageDriver], tmp_path: Path) -> None:
        """No verb leaves anything half made; removing works, and then everything does."""
        place = f"{tmp_path}/small"
        os.mkdir(place)

        def work() -> None:
            from ctr.kernel import mount

            mount("tmpfs", place, "tmpfs", 0, "size=16m,mode=700")
            driver = info.factory(DriverContext(f"{place}/storage", f"{place}/run"))
            with layer(driver, "base") as root:
                with open(f"{root}/content", "wb") as file:
                    file.write(b"x" * (3 << 20))
            with mounted(driver.prepare("full", "base", OPTIONS)) as root:
                with (
                    pytest.raises(OSError, match="No space"),
                    open(f"{root}/filler", "wb", buffering=0) as file,
                ):
                    while True:
                        file.write(b"x" * 4096)
            before = inodes(place)
            with pytest.raises((OSError, CtrError)):
                driver.prepare("late", "base", OPTIONS)
            assert {one.key for one in driver.walk()} == {"base", "full"}
            assert inodes(place) == before
            try:
                driver.commit("name", "full")
            except (OSError, CtrError):
                assert {one.key for one in driver.walk()} == {"base", "full"}
                assert inodes(place) == before
                driver.remove("full")
            else:
                driver.remove("name")
            with mounted(driver.prepare("late", "base", OPTIONS)) as root:
                assert os.path.getsize(f"{root}/content") == 3 << 20

        in_child(work)

    def test_killed_in_prepare(
        self, info: DriverInfo[StorageDriver], context: DriverContext, base: str
    ) -> None:
        """At whatever call: the key is whole or absent, and the verbs work."""
        options = MAPPED if "userns" in info.capabilities else OPTIONS

        def check(driver: StorageDriver) -> None:
            keys = {one.key for one in driver.walk()}
            assert keys in ({base}, {base, "key"})
            if "key" in keys:
                with mounted(driver.mounts("key")) as root:
                    assert read(f"{root}/folder/inner/two") == "2"
                driver.remove("key")
            driver.prepare("key", base, options)
            driver.remove("key")

        self._kill_everywhere(
            info, context, base, lambda: None, lambda one: one.prepare("key", base, options), check
        )

    def test_killed_in_commit(
        self, info: DriverInfo[StorageDriver], context: DriverContext, base: str
    ) -> None:
        """At whatever call: there is the key or the name, with all that was written."""

        def set_up() -> None:
            with mounted(info.factory(context).prepare("key", base, OPTIONS)) as root:
                write(f"{root}/mine", "mine")

        def check(driver: StorageDriver) -> None:
            keys = {one.key for one in driver.walk()}
            assert keys in ({base, "key"}, {base, "name"})
            if "key" in keys:
                driver.commit("name", "key")
            with viewed(driver, "name") as root:
                assert read(f"{root}/mine") == "mine"
            driver.remove("key")
            driver.remove("name")

        self._kill_everywhere(
            info, context, base, set_up, lambda one: one.commit("name", "key"), check
        )

    def test_killed_in_remove(
        self, info: DriverInfo[StorageDriver], context: DriverContext, base: str
    ) -> None:
        """At whatever call: removing again ends it."""

        def set_up() -> None:
            with mounted(info.factory(context).prepare("key", base, OPTIONS)) as root:
                os.makedirs(f"{root}/a/b/c")
                write(f"{root}/a/b/c/file")

        def check(driver: StorageDriver) -> None:
            if "key" in {one.key for one in driver.walk()}:
                with mounted(driver.mounts("key")) as root:
                    assert os.path.exists(f"{root}/a/b/c/file")
            driver.remove("key")
            assert {one.key for one in driver.walk()} == {base}

        self._kill_everywhere(info, context, base, set_up, lambda one: one.remove("key"), check)

    def _kill_everywhere(
        self,
        info: DriverInfo[StorageDriver],
        context: DriverContext,
        base: str,
        set_up: Callable[[], None],
        verb: Callable[[StorageDriver], object],
        check: Callable[[StorageDriver], None],
    ) -> None:
        """Kill the verb before its first change, its second, and so on; sweep and compare."""
        clean = inodes(context.root)
        call, killed = 0, True
        while killed:
            call += 1
            set_up()
            killed = killed_at(call, lambda: verb(info.factory(context)))
            driver = info.factory(context)
            check(driver)
            driver.gc(frozenset({base}))
            if call == 1:
                clean = inodes(context.root)  # with what is derived from the base once
            assert inodes(context.root) == clean, f"killed at call {call}"
            with viewed(driver, base) as root:
                assert read(f"{root}/folder/inner/two") == "2"
        assert call > 3, "the verb was never killed half-way"
