"""What the documentation names is there, and what is there is named."""

from __future__ import annotations

import glob
import inspect
import os
import re
import subprocess
import sys

import click
import pytest

from ctr import config, errors, hookspecs
from ctr.cli.main import cli
from ctr.undo import Undo

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGES = sorted(
    os.path.relpath(path, ROOT)
    for pattern in ("*.md", "docs/**/*.md", "core/*.md", "plugins/*/*.md", "template/**/*.md")
    for path in glob.glob(f"{ROOT}/{pattern}", recursive=True)
)
INDEXES = ["docs/adr", "docs/explanation", "docs/how-to", "docs/reference"]

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def read(path: str) -> str:
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def links(path: str) -> list[str]:
    """The targets of a page's links, those of its examples excepted."""
    return _LINK.findall(_FENCE.sub("", read(path)))


def anchors(path: str) -> set[str]:
    """What a link can name in a page, as the usual renderers make it of the headings."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", read(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def first_column(path: str) -> set[str]:
    """The words in code style that begin the rows of a page's tables."""
    cells = re.findall(r"^\| ([^|]*) \|", read(path), re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


# -- links --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path) -> None:
    for link in links(path):
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        found = os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
        assert os.path.exists(os.path.join(ROOT, found)), link
        assert not anchor or anchor in anchors(found), link


@pytest.mark.parametrize("folder", INDEXES)
def test_an_index_has_every_page(folder) -> None:
    pages = {name for name in os.listdir(os.path.join(ROOT, folder)) if name.endswith(".md")}
    assert pages - {"README.md"} <= set(links(f"{folder}/README.md"))


def test_tests_that_are_named_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", read("docs/explanation/security.md"))
    assert len(named) > 30
    for path, name in named:
        assert re.search(rf"^ *def {name}\(", read(path), re.MULTILINE), f"{path}::{name}"


# -- the reference ------------------------------------------------------------------------


def test_what_is_written_by_the_code_is_up_to_date() -> None:
    command = [sys.executable, f"{ROOT}/docs/generate.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_and_option() -> None:
    page = read("docs/reference/cli.md")
    context = click.Context(cli, info_name="ctr")
    for name in cli.list_commands(context):
        assert f"`ctr {name}" in page
    command = cli.get_command(context, "run")
    assert command is not None
    section = page.partition("## ctr run\n")[2].partition("\n## ")[0]
    options = [name for option in command.params for name in option.opts if name.startswith("-")]
    assert len(options) > 60
    for name in options:
        assert re.search(rf"[` ]{name}[`, ]", section), name


def test_every_hook_with_its_signature() -> None:
    page = read("docs/reference/hooks.md")
    found = [name for name in vars(hookspecs) if hasattr(vars(hookspecs)[name], "ctr_spec")]
    assert len(found) > 8
    for name in found:
        signature = str(inspect.signature(vars(hookspecs)[name])).replace("'", "")
        assert f"### `{name}{signature}`\n" in page


def test_every_environment_variable() -> None:
    used = set()
    for pattern in ("core/src/**/*.py", "plugins/*/src/**/*.py"):
        for path in glob.glob(f"{ROOT}/{pattern}", recursive=True):
            used.update(re.findall(r"\b(?:CTR|XDG)_[A-Z_]+[A-Z]\b", read(path)))
    assert {name for name in used if name.startswith("CTR_")} > set(config.ENVIRONMENT)
    assert used <= first_column("docs/reference/environment.md")


def test_every_key_of_the_configuration() -> None:
    section = read("docs/reference/files.md").partition("## Configuration\n")[2]
    keys = re.findall(r"^\| `\[?(\w+)", section.partition("\n## ")[0], re.MULTILINE)
    tables = {f"{kind}_options" for kind in config.CHOICES}
    assert set(keys) == {*config.FLAGS, *tables}


def test_every_step_of_the_journal() -> None:
    steps = {name[6:].replace("_", "-") for name in vars(Undo) if name.startswith("_undo_")}
    section = read("docs/reference/files.md").partition("## The journal\n")[2]
    rows = re.findall(r"^\| `([\w-]+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert set(rows) == steps


def test_every_error() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| `(\w+)` \|", read("docs/reference/exit-status.md"), re.MULTILINE
    )
    classes = [getattr(errors, name) for name in errors.__all__ if name != "CtrError"]
    assert sorted(rows) == sorted((found.code, found.__name__) for found in classes)
