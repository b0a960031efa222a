"""The first tutorial and the how-to guides: every command is run, its output compared.

In their console blocks a line ``$ COMMAND`` (continued by ``> …`` lines) is a command and what
follows is its output, in which ``…`` stands for anything in a line, and a line of it alone for
any lines.  A code block below a line such as "`hello.py`:" is a file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TUTORIAL = "docs/tutorial/first-container.md"
GUIDES = sorted(
    f"docs/how-to/{name}" for name in os.listdir(f"{ROOT}/docs/how-to") if name != "README.md"
)

#: What starts containers must not touch the machine's network.
ISOLATED = """
import os, sys
from ctr.testing.isolation import isolate
isolate()
os.execvp(sys.argv[1], sys.argv[1:])
"""

#: After a command in the background, as a reader would wait: until one more container runs.
WAIT = """
for _ in $(seq 200); do [ "$(ctr ps -q | wc -l)" -gt "$before" ] && break; sleep 0.1; done
"""

_BLOCK = re.compile(
    r"(?:^`(?P<path>[^`\s]+)`:\n\n?)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Step(NamedTuple):
    """A command and the output it is said to have."""

    command: str
    output: str


def read(path: str) -> tuple[dict[str, str], list[Step]]:
    """The files and the steps of a document."""
    with open(f"{ROOT}/{path}", encoding="utf-8") as file:
        document = file.read()
    files, steps = {}, []
    for block in _BLOCK.finditer(document):
        if block["path"]:
            files[block["path"]] = block["text"]
        elif block["kind"] == "console":
            for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
                lines = part.splitlines()
                more = 1
                while more < len(lines) and lines[more].startswith("> "):
                    more += 1
                command = "\n".join(line.removeprefix("> ") for line in lines[:more])
                steps.append(Step(command, "\n".join(lines[more:])))
    return files, steps


def same(printed: str, expected: str) -> bool:
    """Whether the output is as expected, however wide the columns."""
    pattern = ""
    for line in expected.splitlines():
        words = re.escape(" ".join(line.split())).replace("…", ".*")
        pattern += r"(.*\n)*" if line.strip() == "…" else words + r"\n"
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines if line)) is not None


def play(steps: list[Step], folder: str, variables: dict[str, str], *, isolated: bool) -> None:
    """Run the commands in one shell, each with the variables and jobs of those before."""
    script = ""
    for step in steps:
        background = step.command.endswith("&")
        script += "before=$(ctr ps -q | wc -l)\n" if background else ""
        script += f"{step.command}\nstatus=$?\n{WAIT if background else ''}"
        script += "printf '\\036'\n(exit $status)\n"
    path = os.path.join(folder, ".script")
    with open(path, "w", encoding="utf-8") as file:
        file.write(script)
    argv = ["bash", path]
    done = subprocess.run(
        [sys.executable, "-c", ISOLATED, *argv] if isolated else argv,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # Of a job that was killed a shell says so in its own words.
    printed = [
        re.sub(r"^\S*\.script: line \d+: +\d+ Killed.*\n", "", text, flags=re.MULTILINE)
        for text in done.stdout.split("\036")[:-1]
    ]
    assert len(printed) == len(steps), done.stdout
    for step, output in zip(steps, printed, strict=True):
        assert same(output, step.output), f"$ {step.command}\n{output}"


@pytest.fixture
def variables(tmp_path) -> dict[str, str]:
    """The environment: this installation's ctr first, and a root of the test's own."""
    assert os.geteuid() == 0, "these tests start containers: run them as root"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYT", "CTR_"))}
    return kept | {
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "CTR_ROOT": str(tmp_path / "root"),
        "CTR_RUN_ROOT": str(tmp_path / "run"),
    }


#: At the end of each document nothing is left, and nothing waits to be collected.
CLEAN = [Step("ctr ps -a -q", ""), Step("ctr volume ls -q", ""), Step("ctr system gc", "")]


@pytest.mark.timeout(600)
def test_tutorial(checkout, variables) -> None:
    files, steps = read(TUTORIAL)
    assert not files
    (installed,) = (number for number, step in enumerate(steps, 1) if "pip install" in step.command)
    assert len(steps) - installed > 20
    # Into an environment of its own, found like any other.
    variables["XDG_CACHE_HOME"] = f"{variables['CTR_ROOT']}-cache"
    play(steps[:installed], checkout, variables, isolated=False)
    play([*steps[installed:], *CLEAN], checkout, variables, isolated=True)


@pytest.mark.parametrize("path", GUIDES)
def test_guide(path, tmp_path, variables) -> None:
    files, steps = read(path)
    assert steps
    folder = tmp_path / "work"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    made = Step("ctr run --rm --network none base true", "")  # the image, without a network
    play([made, *steps, *CLEAN], str(folder), variables, isolated=True)


@pytest.mark.parametrize(
    ("printed", "expected", "match"),
    [
        ("a   b\n", "a b", True),
        ("a\nb\n", "a", False),
        ("a\nb\nc\n", "…\nc", True),
        ("c\n", "…\nc", True),
        ("ab\n", "a…", True),
        ("b\n", "a…", False),
        ("a\nb\n", "a…", False),
        ("x\n", "", False),
        ("", "…", True),
    ],
)
def test_output_is_compared(printed, expected, match) -> None:
    assert same(printed, expected) is match
