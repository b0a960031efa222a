"""Two installations on one machine leave each other alone."""

from __future__ import annotations

import threading

import pytest

from .conftest import Ctr

pytestmark = pytest.mark.root


def test_gc_spares_what_another_root_starts(ctr, fresh) -> None:
    """Groups of all roots are in one folder; there is a moment when a new one is empty."""
    assert fresh("image", "ls").status == 0
    stop = threading.Event()
    failures: list[object] = []

    def run() -> None:
        while not stop.is_set():
            result = ctr.run("base", "true")
            if result != (0, "", ""):
                failures.append(result)

    runners = [threading.Thread(target=run) for _ in range(2)]
    for runner in runners:
        runner.start()
    for _ in range(5):
        result = fresh("system", "gc")
        assert (result.status, result.err) == (0, "")
    stop.set()
    for runner in runners:
        runner.join()
    assert failures == []


def test_neither_sees_nor_removes_the_others(ctr, tmp_path) -> None:
    other = Ctr(str(tmp_path))
    process = ctr.spawn("run", "--name", "mine", "--rm", "base", "sleep", "60")
    try:
        while "mine" not in ctr("ps").out:
            assert process.poll() is None
        assert "mine" not in other("ps", "-a").out
        assert other("rm", "-f", "mine").status == 1
        assert other("system", "gc").err == ""
        assert other("system", "prune", "-f").err == ""
        assert "mine" in ctr("ps").out
    finally:
        removed = ctr("rm", "-f", "mine")
        process.communicate(timeout=20)
    assert removed.status == 0
