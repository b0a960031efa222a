"""SIGKILL of ``ctr run`` at every journal step: the machine is as before, once gc has run.

Before the commit point everything is rolled back; after it the container runs to its end and
``--rm`` is carried out all the same.
"""

from __future__ import annotations

import subprocess
import textwrap
import time

import pytest

from ctr import supervision
from ctr.testing.leaks import Snapshot, leaks

pytestmark = pytest.mark.root

#: Runs ``ctr`` and kills itself at the point that its first argument names.
KILLER = textwrap.dedent(
    """
    import os, signal, sys

    from ctr import engine, journal, start, undo
    from ctr.__main__ import main
    from ctr.lifecycle import Step

    wanted = sys.argv.pop(1)

    def point(name):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(cls, method, name):
        original = getattr(cls, method)

        def wrapper(self, *args):
            label = name(*args)
            point(f"before {label}")
            result = original(self, *args)
            point(f"after {label}")
            return result

        setattr(cls, method, wrapper)

    def steps(self):
        for step in original_steps(self):
            def do(step=step):
                point(f"before {step.name}")
                step.do()
                point(f"after {step.name}")
            yield Step(step.name, step.record, do, step.describe)

    original_steps = start.Start.steps
    start.Start.steps = steps
    around(start.Start, "on_sync", lambda number, pid: f"sync {number}")
    around(start.Start, "attach", lambda pid: "endpoint")
    around(journal.FileJournal, "begin", lambda entry: f"begin {entry.step}")
    around(journal.FileJournal, "end", lambda entry: f"end {entry.step}")
    around(journal.FileJournal, "hold", lambda: "hold")
    around(journal.FileJournal, "reopen", lambda: "reopen")
    around(journal.FileJournal, "discard", lambda: "discard")
    around(undo.Undo, "__call__", lambda entry: f"undo {entry.step}")
    main()
    """
)

STEPS = ["record", "folders", "volumes", "snapshot", "cgroup", "address", "supervisor", "endpoint"]
POINTS = [
    *(f"{when} {verb}{step}" for step in STEPS for verb in ("begin ", "") for when in ("before", "after")),
    *(f"{when} sync {number}" for number in (1, 2, 3) for when in ("before", "after")),
    *(f"{when} {what}" for what in ("hold", "reopen", "discard") for when in ("before", "after")),
    *(f"{when} {verb} {step}" for step in STEPS for verb in ("undo", "end") for when in ("before", "after")),
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(ctr_root, tmp_path_factory, point: str) -> None:
    ctr = ctr_root
    ctr("run", "--rm", "--network", "bridge", "base", "true")  # the network is made by now
    folder = str(tmp_path_factory.getbasetemp())
    before = Snapshot.take(folder)
    command = ["run", "--rm", "--network", "bridge", "-v", "/anonymous", "base", "sleep", "0.3"]
    argv = ctr.argv(*command)
    done = subprocess.run(
        [argv[0], "-c", KILLER, point, *argv[3:]], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -9, (point, done.stderr)
    settle(ctr)
    assert leaks(before, folder) == []
    assert ctr("ps", "-a", "-q").out == ""
    assert ctr("volume", "ls", "-q").out == ""


def settle(ctr) -> None:
    """Run gc until nothing is left to end by itself."""
    deadline = time.monotonic() + 20
    while True:
        result = ctr("system", "gc")
        assert (result.status, result.err) == (0, "")
        if not ctr("ps", "-a", "-q").out:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_gc_never_touches_a_live_container(ctr) -> None:
    process = ctr.spawn(
        "run", "--rm", "--name", "alive", "base", "sh", "-c", "echo up; sleep 1; echo end"
    )
    process.stdout.readline()
    for _ in range(3):
        assert ctr("system", "gc").out == ""
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"end\n", b"")


def test_a_killed_supervisor_is_told_and_swept(ctr) -> None:
    process = ctr.spawn("run", "--name", "lost", "base", "sh", "-c", "echo up; sleep 60")
    process.stdout.readline()
    container = ctr("ps", "-q", "--no-trunc").out.strip()
    run_dir = f"{ctr.run_root}/containers/{container}"
    pid = supervision.running_pid(run_dir)
    with open(f"/proc/{pid}/stat") as file:
        supervisor = int(file.read().rpartition(")")[2].split()[1])
    subprocess.run(["kill", "-9", str(supervisor)], check=True)
    process.communicate(timeout=20)
    assert process.returncode == 137
    assert ctr("system", "gc").status == 0
    assert "Dead" in ctr("ps", "-a").out
    assert ctr("rm", "lost").status == 0


def test_fifty_killed_at_random(ctr) -> None:
    import random

    folder = ctr.root
    before = Snapshot.take(folder)
    for _ in range(50):
        process = ctr.spawn("run", "--rm", "--network", "bridge", "base", "sleep", "0.2")
        time.sleep(random.uniform(0.02, 0.4))
        process.kill()
        process.communicate()
    settle(ctr)
    assert leaks(before, folder) == []


def test_sixteen_at_a_time(ctr) -> None:
    processes = [
        ctr.spawn("run", "--rm", "--network", "bridge", "base", "sh", "-c", f"echo {n}; ip addr")
        for n in range(16)
    ]
    for number, process in enumerate(processes):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
        assert out.decode().startswith(f"{number}\n")
        assert b" inet 172.30.0." in out
