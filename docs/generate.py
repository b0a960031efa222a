"""Writes what the reference quotes from the code: ``python docs/generate.py [--check]``.

In the files of ``docs/reference`` a section between ``<!-- generated: NAME -->`` and
``<!-- end -->`` is what the function NAME below returns.  With ``--check`` nothing is
written, and the exit status is 1 when a file is out of date.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import click

from ctr import drivers, hookspecs, operations, options
from ctr.cli.main import cli
from ctr.plugins import PluginHost
from ctr.program import OPERATIONS, SIDES, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DOCS = os.path.dirname(os.path.abspath(__file__))
REFERENCE = os.path.join(DOCS, "reference")
PLUGINS = os.path.join(os.path.dirname(DOCS), "plugins")

_SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Bring every file up to date, or with ``--check`` say which is not."""
    stale = False
    for name in sorted(os.listdir(REFERENCE)):
        path = os.path.join(REFERENCE, name)
        with open(path, encoding="utf-8") as file:
            old = file.read()
        new = _SECTION.sub(lambda match: match[1] + SECTIONS[match[2]]() + match[3], old)
        if new == old:
            continue
        stale = True
        if "--check" in sys.argv:
            print(f"{path} is out of date: run python docs/generate.py")
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(new)
    return 1 if stale and "--check" in sys.argv else 0


# -- the command line ---------------------------------------------------------------------


def commands() -> str:
    """Every command with its options."""
    found = list(_walk(click.Context(cli, info_name="ctr")))
    names: dict[int, list[str]] = {}
    for context in found:
        names.setdefault(id(context.command), []).append(context.command_path)
    (run,) = (context for context in found if context.command_path == "ctr run")
    text = ""
    done = set()
    for context in found:
        command = context.command
        if id(command) in done:
            continue
        done.add(id(command))
        paths = sorted(names[id(command)], key=lambda path: (path.count(" "), path))
        text += f"## {paths[0]}\n\n"
        usage = " ".join(command.collect_usage_pieces(context))
        text += f"`{paths[0]} {usage}`\n\n"
        if len(paths) > 1:
            text += f"Also {' and '.join(f'`{path}`' for path in paths[1:])}.\n\n"
        text += _prose(command.help or "") + "\n\n"
        shown = _options(command, context)
        common = set(_options(run.command, run))
        if command is not run.command and len(common & set(shown)) > 10:
            left_out = ", ".join(f"`{option}`" for option, _ in sorted(common - set(shown)))
            text += f"The options of [`ctr run`](#ctr-run), without {left_out}, and:\n\n"
            shown = [option for option in shown if option not in common]
        text += _table(("option", "meaning"), [(f"`{name}`", about) for name, about in shown])
        if isinstance(command, click.Group):
            text += _table(("command", ""), _subcommands(command, context))
    return text


def _walk(context: click.Context) -> Iterator[click.Context]:
    """The command of ``context`` and all below it."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from _walk(click.Context(command, info_name=name, parent=context))


def _options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    """What an option looks like, and its help."""
    found = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names = ", ".join(sorted(parameter.opts, key=len))
            value = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
            about = parameter.help or ""
            if isinstance(parameter.type, click.Choice) and isinstance(parameter.default, str):
                about = " ".join(filter(None, (about, f"[default: {parameter.default}]")))
            more = " May be repeated." if parameter.multiple else ""
            found.append((names + value, " ".join(about.split()) + more))
    return found


def _subcommands(group: click.Group, context: click.Context) -> list[tuple[str, str]]:
    rows = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        rows.append((f"`{context.command_path} {name}`", command.get_short_help_str(200)))
    return rows


# -- hooks and drivers --------------------------------------------------------------------


def hooks() -> str:
    """Every hook with its signature and docstring."""
    text = ""
    for name, function in vars(hookspecs).items():
        if hasattr(function, f"{hookspecs.GROUP}_spec"):
            text += f"### `{name}{_signature(function)}`\n\n{_prose(function.__doc__)}\n\n"
    return text


def protocols() -> str:
    """Every protocol's methods, and the records that drivers are told and tell."""
    text = ""
    for name, cls in vars(drivers).items():
        if not inspect.isclass(cls) or cls.__module__ != drivers.__name__:
            continue
        fields = getattr(cls, "_fields", ())
        text += f"### {name}\n\n"
        if fields:
            kinds = ", ".join(f"`{field}: {_annotation(cls, field)}`" for field in fields)
            text += f"Fields: {kinds}.\n\n"
        text += f"{_prose(cls.__doc__)}\n\n"
        for method, function in vars(cls).items():
            if inspect.isfunction(function) and not method.startswith("_"):
                text += f"- **`{method}{_signature(function)}`**\n\n"
                text += _indent(_prose(function.__doc__)) + "\n\n"
    return text


def driver_options() -> str:
    """The built-in drivers with their capabilities and options."""
    host = PluginHost()
    ours = set()
    for folder in sorted(os.listdir(PLUGINS)):
        with open(os.path.join(PLUGINS, folder, "pyproject.toml"), "rb") as file:
            ours.add(tomllib.load(file)["project"]["name"])
    text = ""
    for kind in drivers.KINDS:
        for name, offer in host.drivers(kind).items():
            if offer.distribution not in ours:
                continue
            summary = offer.info.summary[:1].upper() + offer.info.summary[1:]
            text += f"### {kind} `{name}` ({offer.distribution})\n\n{summary}.\n\n"
            if offer.info.capabilities:
                words = ", ".join(f"`{word}`" for word in sorted(offer.info.capabilities))
                text += f"Capabilities: {words}.\n\n"
            found = options.describe(name, offer.info.options)
            rows = [(f"`{row['name']}`", row["type"], row["default"], row["help"]) for row in found]
            text += _table(("option", "type", "default", "meaning"), rows)
    return text


# -- the launch program -------------------------------------------------------------------


def all_operations() -> str:
    """Every operation with its fields, by the phase in which it usually runs."""
    text = ""
    for phase in Phase:
        found = [
            cls
            for cls in OPERATIONS.values()
            if cls.default_phase is phase and cls.__module__ == operations.__name__
        ]
        text += f"### {phase.name} ({SIDES[phase].name.lower()})\n\n"
        for cls in found:
            fields = ", ".join(f"{name}: {kind}" for name, kind in cls.fields)
            text += f"- **`{cls.__name__}({fields})`**, opcode {cls.opcode}\n\n"
            text += _indent(_prose(cls.__doc__)) + "\n\n"
    return text


# -- text ---------------------------------------------------------------------------------


def _annotation(cls: type, field: str) -> str:
    kind = cls.__annotations__[field]
    return str(getattr(kind, "__forward_arg__", kind))


def _signature(function: Callable[..., Any]) -> str:
    text = str(inspect.signature(function)).replace("'", "")
    return re.sub(r"\(self(, )?", "(", text)


def _prose(docstring: str | None) -> str:
    """A docstring as Markdown: reStructuredText's literals, and no line breaks of the code's."""
    text = inspect.cleandoc(docstring or "").replace("``", "`")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *escaped]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


SECTIONS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "hooks": hooks,
    "protocols": protocols,
    "driver_options": driver_options,
    "operations": all_operations,
}

if __name__ == "__main__":
    sys.exit(main())
