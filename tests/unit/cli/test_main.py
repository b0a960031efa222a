from __future__ import annotations

import importlib
import os
import subprocess
import sys

import click
import pytest

from ctr.cli import main
from ctr.errors import CtrError, InvalidError, LaunchError, NotFoundError


@pytest.fixture
def command(monkeypatch):
    """Adds a command ``probe`` that does what the test says."""

    def add(act, *, exit_125=False, parameters=()):
        command = click.Command("probe", callback=act, params=list(parameters))
        if exit_125:
            command.exit_125 = True  # type: ignore[attr-defined]
        monkeypatch.setitem(main.cli.commands, "probe", command)

    return add


def fail(error):
    def act():
        raise error

    return act


def test_every_command_of_the_table_exists():
    for group in (main.cli, main.container):
        assert isinstance(group, main.LazyGroup)
        for target, _ in group.table.values():
            module, _, attribute = target.partition(":")
            assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


def test_help_names_every_command_and_imports_none():
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ctr", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert isinstance(main.cli, main.LazyGroup)
    for name in main.cli.table:
        assert f"\n  {name}" in run.stdout
    for module in ("ctr.engine", "ctr.plugins", "pluggy", "importlib.metadata", "json", "attrs"):
        assert f" {module}\n" not in run.stderr


@pytest.mark.parametrize("flag", ["-v", "--version"])
def test_version(flag, capsys):
    assert main.run([flag]) == 0
    assert capsys.readouterr().out.startswith("ctr version ")


@pytest.mark.parametrize(
    ("error", "status", "in_run"),
    [
        (NotFoundError("cannot find it", hint="look"), 1, 125),
        (LaunchError("cannot start it"), 125, 125),
        (click.ClickException("cannot"), 1, 125),
        (RuntimeError("surprise"), 1, 125),
        (KeyboardInterrupt(), 130, 130),
    ],
)
def test_exit_status(command, error, status, in_run):
    command(fail(error))
    assert main.run(["probe"]) == status
    command(fail(error), exit_125=True)
    assert main.run(["probe"]) == in_run


def test_a_command_returns_its_status(command):
    command(lambda: 42, exit_125=True)
    assert main.run(["probe"]) == 42
    command(lambda: None)
    assert main.run(["probe"]) == 0


def test_an_error_is_a_line_and_a_hint(command, capsys):
    command(fail(NotFoundError("cannot find it", hint="look elsewhere")))
    main.run(["probe"])
    assert capsys.readouterr().err == "ctr: cannot find it\nhint: look elsewhere\n"


def test_errors_cannot_control_the_terminal(command, capsys):
    command(fail(NotFoundError("cannot find \x1b[31m\n")))
    main.run(["probe"])
    assert capsys.readouterr().err == "ctr: cannot find ?[31m?\n"


def test_notes_and_groups_are_lines_of_their_own(command, capsys):
    error = CtrError("cannot undo it")
    error.add_note("clean-up also failed: x")
    command(fail(ExceptionGroup("cannot undo everything", [error, InvalidError("b", hint="c")])))
    assert main.run(["probe"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "ctr: cannot undo everything",
        "ctr: cannot undo it",
        "ctr: clean-up also failed: x",
        "ctr: b",
        "hint: c",
    ]


def test_errors_as_json(command, capsys):
    command(fail(NotFoundError("cannot find it")))
    main.run(["--log-format", "json", "probe"])
    assert capsys.readouterr().err == (
        '{"level": "error", "code": "not_found", "message": "cannot find it"}\n'
    )


def test_a_traceback_only_for_debug(command, capsys):
    command(fail(RuntimeError("surprise")))
    main.run(["probe"])
    assert capsys.readouterr().err == (
        "ctr: internal error: RuntimeError: surprise\nhint: `ctr --debug …` prints where it happened\n"
    )
    main.run(["--debug", "probe"])
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "hint" not in error


@pytest.mark.parametrize(
    ("arguments", "status", "lines"),
    [
        (["--foo"], 125, ["ctr: unknown flag --foo"]),
        (["--rot", "x"], 125, ["ctr: unknown flag --rot", "hint: did you mean --root"]),
        (["--root"], 125, ["ctr: option '--root' requires an argument", "hint: see `ctr --help`"]),
        (["drivrs"], 1, ["ctr: unknown command 'drivrs'", "hint: did you mean 'drivers'?"]),
        (["qqq"], 1, ["ctr: unknown command 'qqq'", "hint: see `ctr --help`"]),
        (["plugin", "inspect"], 1, ["ctr: missing argument 'NAME'"]),
        (["drivers", "--format", "xml"], 125, ["ctr: invalid value for '--format'"]),
    ],
)
def test_usage(arguments, status, lines, capsys):
    assert main.run(arguments) == status
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 2
    for line, start in zip(printed, lines, strict=False):
        assert line.startswith(start)


def test_h_is_help_but_where_it_is_taken(command, capsys):
    assert main.run(["drivers", "-h"]) == 0
    assert "Usage: ctr drivers" in capsys.readouterr().out
    assert main.run(["run", "-h", "name", "--help"]) == 0
    assert "Usage: ctr run" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["image"]])
def test_a_group_alone_is_a_question_for_help(arguments, capsys):
    assert main.run(arguments) == 0
    printed = capsys.readouterr()
    assert "Commands:\n" in printed.out
    assert not printed.err


def test_settings_reach_the_command(command, monkeypatch):
    monkeypatch.setenv("CTR_STORAGE", "from-environment")
    seen = []
    command(click.pass_obj(lambda cli: seen.append(cli.settings)))
    main.run(
        ["--root", "/r", "--storage-opt", "a=b", "--storage-opt", "c=d", "--no-plugins", "probe"]
    )
    (settings,) = seen
    assert settings.root == "/r"
    assert settings.storage == "from-environment"
    assert settings.storage_opts == ("a=b", "c=d")
    assert not settings.plugins


@pytest.mark.parametrize("arguments", [["--help"], ["plugin", "ls"]])
def test_a_reader_that_goes_away_is_no_error(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "ctr", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert run.returncode == main.PIPE_CLOSED
    assert run.stderr == b""
