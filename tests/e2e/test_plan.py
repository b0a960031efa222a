"""``ctr plan run`` tells what ``ctr run`` does, and touches nothing."""

from __future__ import annotations

import json
import os
import re

import pytest

pytestmark = pytest.mark.root


def test_a_plan_before_anything_was_run(fresh) -> None:
    result = fresh("plan", "run", "base", "true")
    assert (result.status, result.err) == (0, "")
    assert "make veth <veth> in bridge ctr" in result.out
    assert "of <made on first use>\n" in result.out
    assert not os.path.exists(fresh.root)
    assert not os.path.exists(fresh.run_root)


def test_an_unknown_image(fresh) -> None:
    result = fresh("plan", "run", "nope", "true")
    assert result.status == 1
    assert result.err.startswith("ctr: cannot find image 'nope'\nhint: ")
    assert not os.path.exists(fresh.root)


def test_every_operation_has_its_plugin(ctr) -> None:
    plan = json.loads(ctr("plan", "run", "--format", "json", "base", "true").out)
    asked = {operation["by"] for operation in plan["operations"]}
    assert asked >= {"core", "namespaces", "cgroups", "storage-overlay"}
    assert [step["name"] for step in plan["steps"]][-1] == "supervisor"
    text = ctr("plan", "run", "base", "true").out
    rows = re.findall(r"^ *(\d+)(?:-(\d+))?  (?:supervisor|parent|child) ", text, re.MULTILINE)
    assert int(rows[-1][1] or rows[-1][0]) == len(plan["operations"])
    assert 30 <= len(rows) <= 60


def test_the_run_does_what_the_plan_says(ctr) -> None:
    options = ["run", "--rm", "--network", "none", "--read-only", "-m", "64m"]
    plan = json.loads(ctr("plan", *options, "--format", "json", "base", "true").out)
    result = ctr("--debug", *options, "base", "true")
    assert result.status == 0
    done = re.findall(r"^ctr: debug: (\S+): (.*)$", result.err, re.MULTILINE)
    planned = [(operation["by"], operation["describe"]) for operation in plan["operations"]]
    known = re.compile(r"<layers>|[0-9a-f]{64}|[0-9a-f]{12}|/\S*/(layers|snapshots|overlay)\S*")
    assert [by for by, _ in done] == [by for by, _ in planned]
    for (_, act), (_, promise) in zip(done, planned, strict=True):
        if "<layers>" not in promise:
            assert known.sub("*", act) == known.sub("*", promise)
