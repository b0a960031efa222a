"""The waterfall of ``ctr run --timing``."""

from __future__ import annotations

import subprocess
import sys

from ctr.operations import PivotRoot, Umask
from ctr.timing import Timeline


def test_phases_add_up() -> None:
    timeline = Timeline()
    timeline.before_ns = 3_000_000
    timeline.marks = [("settle", "core", 2_000_000, 500_000), ("snapshot", "flat", 5_000_000, 0)]
    timeline.operations = {"core": 250_000}
    head, *rows, total, program = timeline.waterfall()
    assert head.split() == ["PHASE", "PLUGIN", "MS", "IMPORTING"]
    assert [row.split()[-4:-1] for row in rows[1:]] == [
        ["core", "2.00", "0.50"],
        ["flat", "5.00", "0.00"],
    ]
    assert total.split() == ["total", "10.00", "3.50"]
    assert program == "launch program, in ms by plugin: core 0.25"
    ends = [len(row) for row in rows]
    assert ends == sorted(ends)


def test_operations_belong_to_their_plugin() -> None:
    timeline = Timeline()
    for operation in (PivotRoot().asked_by("a"), Umask(0o22).asked_by("b"), None):
        timeline.operation(operation)
    assert set(timeline.operations) == {"a", "b"}
    timeline.operation(None)
    assert set(timeline.operations) == {"a", "b"}


def test_imports_are_told_from_work() -> None:
    script = (
        "from ctr.timing import Timeline\n"
        "timeline = Timeline(); timeline.watch()\n"
        "import email.message\n"
        "timeline.mark('import')\n"
        "sum(range(300000))\n"
        "timeline.mark('work')\n"
        "(_, _, whole, importing), (_, _, _, nothing) = timeline.marks\n"
        "print(0 < importing <= whole, nothing)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"True 0\n", done
