"""The tutorial for plugin authors, step by step, as its reader would do it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TUTORIAL = f"{ROOT}/docs/plugin-authors/tutorial.md"

#: pip needs the network; whatever starts containers must not touch the machine's.
ISOLATED = """
import os, sys
from ctr.testing.isolation import isolate
isolate()
os.execvp(sys.argv[1], sys.argv[1:])
"""

_BLOCK = re.compile(
    r"(?:^`(?P<path>[^`\n]+)`:\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Step(NamedTuple):
    """A file to write, or a command with what it prints."""

    path: str
    command: str
    text: str


def steps(document: str) -> list[Step]:
    found = []
    for block in _BLOCK.finditer(document):
        if block["path"]:
            found.append(Step(block["path"], "", block["text"]))
        elif block["kind"] == "console":
            for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                found.append(Step("", command, output))
    return found


def same(printed: str, expected: str) -> bool:
    """Line by line, however far apart the words; ``*`` is anything, ``...`` any lines."""
    wanted = ["*" if line == "..." else " ".join(line.split()) for line in expected.splitlines()]
    pattern = re.escape("\n".join(wanted)).replace(re.escape("*"), "(.|\n)*")
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("WARNING: ", "[notice]"))]
    return re.fullmatch(pattern, "\n".join(lines)) is not None


def test_every_step_works(checkout, new_environment, tmp_path):
    with open(TUTORIAL) as file:
        todo = steps(file.read())
    assert len([step for step in todo if step.command]) >= 10
    environment = new_environment("tutorial")
    environment.pip("install", checkout)
    variables = {key: os.environ[key] for key in os.environ if not key.startswith("PYT")} | {
        "PATH": f"{environment.folder}/bin:{os.environ['PATH']}",
        "CTR_ROOT": str(tmp_path / "root"),
        "CTR_RUN_ROOT": str(tmp_path / "run"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    (tmp_path / "work").mkdir()
    for step in todo:
        if step.path:
            path = tmp_path / "work" / step.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text)
            continue
        command = ["bash", "-c", step.command]
        if not step.command.startswith("pip "):
            command = [sys.executable, "-c", ISOLATED, *command]
        run = subprocess.run(
            command,
            env=variables,
            cwd=tmp_path / "work",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert same(run.stdout, step.text), f"$ {step.command}\n{run.stdout}"


@pytest.mark.parametrize(
    ("printed", "expected", "match"),
    [
        ("a   b\n", "a b\n", True),
        ("a\nb\n", "a\n", False),
        ("a\nb\nc\n", "...\nc\n", True),
        ("5 passed in 3s\n", "* passed*\n", True),
        ("WARNING: x\n", "", True),
        ("x\n", "", False),
    ],
)
def test_output_is_compared(printed, expected, match):
    assert same(printed, expected) is match
