"""The ``ctr`` command: global options, the table of commands, and how errors are told.

Only the invoked command's module is imported.  A command whose errors all exit 125, as
docker's ``run`` and ``create`` do, has the attribute ``exit_125 = True``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ctr import __version__
from ctr.config import LOG_FORMATS, Settings, did_you_mean, load
from ctr.errors import CtrError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.plugins import PluginHost

#: Exit status of a wrong flag everywhere, and of every error of ``run``, as docker has it.
ENGINE_FAILED = 125
#: 128 + SIGINT, 128 + SIGPIPE.
INTERRUPTED, PIPE_CLOSED = 130, 141

#: A group without a command, which asks for help; before click 8.2 that was no error.
_ONLY_A_GROUP = getattr(click.exceptions, "NoArgsIsHelpError", ())

_META = "ctr.exit_125"
_HELP = ["-h", "--help"]


class Cli:
    """What every command gets as ``ctx.obj``: the settings, and the plugins when asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._host: PluginHost | None = None

    @property
    def host(self) -> PluginHost:
        """The plugin host, made at the first use."""
        if self._host is None:
            from ctr.plugins import PluginHost

            self._host = PluginHost(enabled=self.settings.plugins, warn=self.warn)
        return self._host

    def warn(self, message: str) -> None:
        """Print one warning to standard error."""
        _tell("warning", message, self.settings.log_format)


class Command(click.Command):
    """A command whose ``--help`` costs nothing until it is asked for."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Click's own, without its look-up of a translation, which imports ``locale`` (3 ms)."""
        names = self.get_help_option_names(ctx)
        if names and self._help_option is None:
            self._help_option = click.Option(
                sorted(names, key=len),
                is_flag=True,
                is_eager=True,
                expose_value=False,
                help="Show this message and exit.",
                callback=_show_help,
            )
        return self._help_option


def _show_help(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


class LazyGroup(Command, click.Group):
    """A group whose commands are ``name: ("module:attribute", short help)``."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.table})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        import importlib

        module, _, attribute = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            raise UnknownCommandError(name, ctx, self.list_commands(ctx))
        resolved = super().resolve_command(ctx, args)
        if getattr(resolved[1], "exit_125", False):
            ctx.meta[_META] = True
        return resolved

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in self.table:
                rows.append((name, self.table[name][1]))
            elif (command := super().get_command(ctx, name)) is not None:
                rows.append((name, command.get_short_help_str(80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class UnknownCommandError(click.UsageError):
    """No such command; ``hint`` names the nearest."""

    def __init__(self, name: str, ctx: click.Context, known: Sequence[str]) -> None:
        super().__init__(f"unknown command {name!r}", ctx)
        near = did_you_mean(name, known)
        self.hint = near if near.startswith("did") else f"see `{ctx.command_path} --help`"


_CONTAINER = {
    "inspect": ("ctr.cli.container:inspect", "Print all that is known of containers"),
    "ls": ("ctr.cli.container:ls", "List containers"),
    "rm": ("ctr.cli.container:rm", "Remove containers"),
    "run": ("ctr.cli.run:run", "Create and run a container"),
}
_TABLE = {
    **{name: _CONTAINER[name] for name in ("inspect", "rm", "run")},
    "ps": _CONTAINER["ls"],
    "doctor": ("ctr.cli.doctor:doctor", "Check what this machine can do, and say how to mend it"),
    "drivers": ("ctr.cli.drivers:drivers", "List the drivers and whether they can work here"),
    "image": ("ctr.cli.image:image", "Manage images"),
    "info": ("ctr.cli.system:info", "Describe this installation and its machine"),
    "plan": ("ctr.cli.plan:plan", "Print what a command would do, without doing it"),
    "plugin": ("ctr.cli.plugin:plugin", "Manage plugins"),
    "system": ("ctr.cli.system:system", "Manage ctr's own state"),
    "version": ("ctr.cli.system:version", "Print versions"),
    "volume": ("ctr.cli.volume:volume", "Manage volumes"),
}


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"ctr version {__version__}")
        ctx.exit()


@click.group(
    "ctr",
    cls=LazyGroup,
    table=_TABLE,
    context_settings={"help_option_names": _HELP, "max_content_width": 100},
)
@click.option("--root", metavar="DIR", help="Persistent state.  [default: /var/lib/ctr]")
@click.option("--run-root", metavar="DIR", help="State until reboot.  [default: /run/ctr]")
@click.option("--storage", metavar="NAME", help="Storage driver.  [default: overlay]")
@click.option("--storage-opt", multiple=True, metavar="K=V", help="Option of the storage driver.")
@click.option("--network-driver", metavar="NAME", help="Network driver.  [default: bridge]")
@click.option("--network-opt", multiple=True, metavar="K=V", help="Option of the network driver.")
@click.option("--cgroups", metavar="NAME", help="Cgroup driver.  [default: v2 or v1, as mounted]")
@click.option("--cgroup-opt", multiple=True, metavar="K=V", help="Option of the cgroup driver.")
@click.option("--no-plugins", is_flag=True, help="Load no plugin.")
@click.option("--debug", is_flag=True, help="Log each step; print tracebacks.")
@click.option("--log-format", type=click.Choice(LOG_FORMATS), help="Form of log and error lines.")
@click.option(
    "-v",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version.",
)
@click.pass_context
def cli(
    ctx: click.Context,
    root: str | None,
    run_root: str | None,
    storage: str | None,
    storage_opt: tuple[str, ...],
    network_driver: str | None,
    network_opt: tuple[str, ...],
    cgroups: str | None,
    cgroup_opt: tuple[str, ...],
    no_plugins: bool,
    debug: bool,
    log_format: str | None,
) -> None:
    """A container engine for Linux in which every Linux primitive is a plugin."""
    settings = load(
        {
            "root": root,
            "run_root": run_root,
            "storage": storage,
            "storage_opts": storage_opt,
            "network_driver": network_driver,
            "network_opts": network_opt,
            "cgroups": cgroups,
            "cgroup_opts": cgroup_opt,
            "plugins": not no_plugins,
            "debug": debug,
            "log_format": log_format,
        },
        os.environ,
    )
    if settings.debug or settings.log_format != "text":
        from ctr.cli import logs

        logs.configure(debug=settings.debug, log_format=settings.log_format)
    ctx.obj = Cli(settings)


@cli.group("container", cls=LazyGroup, table=_CONTAINER)
def container() -> None:
    """Manage containers."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit status.  Errors are printed, never raised."""
    teller = _Teller(arguments)
    try:
        with cli.make_context("ctr", list(arguments)) as ctx:
            teller.context = ctx
            status = cli.invoke(ctx)
            sys.stdout.flush()
            return status if isinstance(status, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except _ONLY_A_GROUP as help_:
        click.echo(help_.message)
        return 0
    except BrokenPipeError:
        # What reads our output has gone; the interpreter's own flush would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return PIPE_CLOSED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        return teller.tell(error)


class _Teller:
    """Prints an error in ctr's form and says what the exit status is."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = arguments
        self.context: click.Context | None = None

    @property
    def debug(self) -> bool:
        """Whether ``--debug`` was given, even where the arguments can't be parsed."""
        return self.context.params["debug"] if self.context else "--debug" in self.arguments

    @property
    def log_format(self) -> str:
        """The form of the error lines, as far as it is known."""
        found = self.context.obj if self.context else None
        return found.settings.log_format if isinstance(found, Cli) else "text"

    def tell(self, error: Exception) -> int:
        if self.debug:
            import traceback

            traceback.print_exception(error)
        status = self._tell(error)
        engine = self.context is not None and self.context.meta.get(_META)
        return ENGINE_FAILED if engine and status < ENGINE_FAILED else status

    def _tell(self, error: Exception) -> int:
        if isinstance(error, CtrError):
            self._line(error.message, error.hint, error.code)
            for note in getattr(error, "__notes__", ()):
                self._line(note)
            return error.exit_status
        if isinstance(error, ExceptionGroup):
            self._line(error.message)
            for child in error.exceptions:
                self._tell(child)
            return 1
        if isinstance(error, click.UsageError):
            return self._usage(error)
        if isinstance(error, click.ClickException):
            self._line(error.format_message())
            return 1
        hint = "" if self.debug else "`ctr --debug …` prints where it happened"
        self._line(f"internal error: {type(error).__name__}: {error}", hint)
        return 1

    def _usage(self, error: click.UsageError) -> int:
        path = error.ctx.command_path if error.ctx is not None else "ctr"
        hint = getattr(error, "hint", f"see `{path} --help`")
        message = error.format_message().rstrip(".")
        if isinstance(error, click.NoSuchOption):
            message = f"unknown flag {error.option_name}"
            if error.possibilities:
                hint = f"did you mean {' or '.join(sorted(error.possibilities))}?"
        self._line(message[:1].lower() + message[1:], hint, "invalid")
        flag = (click.NoSuchOption, click.BadOptionUsage, click.BadParameter)
        missing = isinstance(error, click.MissingParameter)
        return ENGINE_FAILED if isinstance(error, flag) and not missing else 1

    def _line(self, message: str, hint: str = "", code: str = "error") -> None:
        _tell("error", message, self.log_format, hint=hint, code=code)


def _tell(level: str, message: str, log_format: str, *, hint: str = "", code: str = "") -> None:
    """One message on standard error; what it quotes can't control the terminal."""
    if log_format == "json":
        import json

        entry = {"level": level, "code": code, "message": message, "hint": hint}
        print(json.dumps({key: value for key, value in entry.items() if value}), file=sys.stderr)
        return
    prefix = "ctr: " if level == "error" else f"ctr: {level}: "
    lines = [prefix + message, *([f"hint: {hint}"] if hint else [])]
    for line in lines:
        text = line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)
        print(text, file=sys.stderr)
