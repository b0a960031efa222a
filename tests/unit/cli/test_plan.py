"""The table that ``ctr plan`` prints."""

from __future__ import annotations

import pytest

from ctr.cli.plan import _text, _together
from ctr.lifecycle import Step
from ctr.operations import Exec, JoinCgroup, MaskPath, ReadonlyPath, Sync
from ctr.planning import Plan

ID = "0123456789abcdef" * 4


class Spec:
    id = ID


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["mask /a"], "mask /a"),
        (["mask /a", "mask /b c"], "mask /a, /b c"),
        (["make /a read-only", "make /b read-only"], "make /a, /b read-only"),
        (["same words", "same words"], "same words, words"),
        (["go", "go"], "go, go"),
        (["open /a as [1]", "open /b as [2]"], "open /a as [1], /b as [2]"),
    ],
)
def test_neighbours_share_words(texts, told) -> None:
    assert _together(texts) == told


def test_the_table() -> None:
    operations = [
        Sync(1).asked_by("core"),
        JoinCgroup(1).asked_by("cgroups"),
        JoinCgroup(2).asked_by("cgroups"),
        JoinCgroup(3).asked_by("other"),
        MaskPath("/proc/a", 4).asked_by("core"),
        ReadonlyPath("/proc/b").asked_by("core"),
        Exec(("true", ID), (), "").asked_by("core"),
    ]
    steps = [Step("folders", {}, lambda: None, f"make /x/{ID}")]
    text = _text(Plan(Spec(), steps, ["plug it in"], operations, (f"/x/{ID[:12]}",)))  # type: ignore[arg-type]
    assert text.splitlines() == [
        "Host steps (undone in reverse order):",
        "    1  folders     make /x/<id>",
        "",
        "Launch program:",
        "       SIDE        BY                OPERATION",
        "    1  parent      core              sync point A",
        "       engine      network           plug it in",
        "  2-3  child       cgroups           join the cgroup behind [1], [2]",
        "    4  child       other             join the cgroup behind [3]",
        "    5  child       core              mask /proc/a",
        "    6  child       core              make /proc/b read-only",
        "    7  child       core              execute true <id>",
        "",
        "Descriptor slots:",
        "   [0]  /x/<short id>",
    ]
