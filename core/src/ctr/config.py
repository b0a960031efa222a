"""What the user chose: flags, then the environment, then configuration files, then defaults.

The files are ``/etc/ctr/config.toml`` and, for anyone but root, ``$XDG_CONFIG_HOME/ctr/config.toml``,
which goes first::

    root = "/srv/ctr"
    storage = "overlay"
    network_driver = "bridge"

    [storage_options.overlay]
    key = "value"

The options of a driver belong to that driver by name, so that choosing another one for one
container does not drag them along.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ctr.drivers import DriverContext
from ctr.errors import InvalidError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Where the state of root's containers is.
ROOT = "/var/lib/ctr"
SYSTEM_FILE = "/etc/ctr/config.toml"
LOG_FORMATS = ("text", "json")

#: Field of Settings by environment variable.
ENVIRONMENT = {
    "CTR_ROOT": "root",
    "CTR_RUN_ROOT": "run_root",
    "CTR_STORAGE": "storage",
    "CTR_NETWORK_DRIVER": "network_driver",
    "CTR_CGROUPS": "cgroups",
}

#: Field of Settings by flag.
FLAGS = {
    "root": "--root",
    "run_root": "--run-root",
    "storage": "--storage",
    "network_driver": "--network-driver",
    "cgroups": "--cgroups",
    "log_format": "--log-format",
}

#: Fields of Settings that name a driver and that hold its options, by kind.
CHOICES = {
    "storage": ("storage", "storage_opts"),
    "network": ("network_driver", "network_opts"),
    "cgroup": ("cgroups", "cgroup_opts"),
}

_FILE_TABLES = {
    "storage_options": "storage",
    "network_options": "network",
    "cgroup_options": "cgroup",
}
_FILE_KEYS = (*FLAGS, *_FILE_TABLES)


class Settings(NamedTuple):
    """The settings of one command.

    ``cgroups`` None means: the first usable one of v2 and v1.  ``…_opts`` are the ``K=V``
    of the flags.  ``sources`` tells for each field that was chosen explicitly where: a
    flag, a variable or a file.  ``file_options`` are the files' options, as ``K=V`` by
    kind and driver.
    """

    root: str
    run_root: str
    storage: str = "overlay"
    network_driver: str = "bridge"
    cgroups: str | None = None
    storage_opts: tuple[str, ...] = ()
    network_opts: tuple[str, ...] = ()
    cgroup_opts: tuple[str, ...] = ()
    plugins: bool = True
    debug: bool = False
    log_format: str = "text"
    sources: Mapping[str, str] = {}
    file_options: Mapping[tuple[str, str], tuple[str, ...]] = {}

    def driver(self, kind: str) -> str | None:
        """The driver chosen for ``kind``; None where the engine is to choose."""
        choice: str | None = getattr(self, CHOICES[kind][0]) if kind in CHOICES else None
        return choice

    def source(self, kind: str) -> str:
        """Where the driver of ``kind`` was chosen; empty for the default."""
        return self.sources.get(CHOICES[kind][0], "") if kind in CHOICES else ""

    def options(self, kind: str, driver: str) -> tuple[str, ...]:
        """The options for ``driver`` as ``K=V``, those that win last.

        A flag's options are for the driver that the settings choose; other drivers, which
        a container's record may name, get the files' only.
        """
        options = self.file_options.get((kind, driver), ())
        if kind in CHOICES and self.driver(kind) in {driver, None}:
            flags: tuple[str, ...] = getattr(self, CHOICES[kind][1])
            options += flags
        return options

    def context(self, kind: str, driver: str, options: object = None) -> DriverContext:
        """What ``driver`` is opened with; ``options`` as ``ctr.options.parse`` returns them."""
        return DriverContext(
            os.path.join(self.root, kind, driver),
            os.path.join(self.run_root, kind, driver),
            options,
        )


def load(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    *,
    uid: int | None = None,
    system_file: str = SYSTEM_FILE,
) -> Settings:
    """Return the settings of this command.

    ``flags`` has a value (or None: not given) by field of Settings.  Raises InvalidError
    for a wrong value, file or key, naming where it was found, and StateError for a file
    that can't be read.
    """
    uid = os.geteuid() if uid is None else uid
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    file_options: dict[tuple[str, str], tuple[str, ...]] = {}
    files = [system_file]
    if uid:
        files.append(os.path.join(_xdg(environment, "XDG_CONFIG_HOME", ".config"), "config.toml"))
    for path in files:
        for key, value in _read(path).items():
            if key in _FILE_TABLES:
                file_options.update(_options(path, key, value))
            elif isinstance(value, str):
                values[key] = value
                sources[key] = path
            else:
                raise InvalidError(f"cannot use {path}: {key} must be a string")
    for variable, field in ENVIRONMENT.items():
        if environment.get(variable):
            values[field] = environment[variable]
            sources[field] = variable
    for field, given in flags.items():
        if given is not None:
            values[field] = given
            if field in FLAGS:
                sources[field] = FLAGS[field]
    for field, default in _default_roots(environment, uid).items():
        values[field] = _absolute(field, values.get(field, default), sources)
    if values.get("log_format", "text") not in LOG_FORMATS:
        raise InvalidError(
            f"cannot use {sources['log_format']}: log_format must be one of {', '.join(LOG_FORMATS)}"
        )
    return Settings(**values, sources=sources, file_options=file_options)  # type: ignore[arg-type]


def _default_roots(environment: Mapping[str, str], uid: int) -> dict[str, str]:
    if not uid:
        return {"root": ROOT, "run_root": "/run/ctr"}
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return {
        "root": _xdg(environment, "XDG_DATA_HOME", ".local/share"),
        "run_root": os.path.join(runtime, "ctr"),
    }


def _xdg(environment: Mapping[str, str], variable: str, below_home: str) -> str:
    """ctr's folder, by the XDG Base Directory Specification: a relative path counts as unset."""
    base = environment.get(variable, "")
    if not base.startswith("/"):
        base = os.path.join(environment.get("HOME") or os.path.expanduser("~"), below_home)
    return os.path.join(base, "ctr")


def _absolute(field: str, value: object, sources: Mapping[str, str]) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidError(f"cannot use {sources.get(field, field)}: it must be a path")
    return os.path.abspath(value)


def _read(path: str) -> dict[str, object]:
    """The file's table; empty where there is no file."""
    try:
        with open(path, "rb") as file:
            import tomllib

            table = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise InvalidError(f"cannot use {path}: {error}") from error
    for key in table:
        if key not in _FILE_KEYS:
            raise InvalidError(
                f"cannot use {path}: unknown key {key!r}", hint=did_you_mean(key, _FILE_KEYS)
            )
    return table


def _options(path: str, table: str, value: object) -> dict[tuple[str, str], tuple[str, ...]]:
    """One table of driver options as ``K=V``."""
    kind = _FILE_TABLES[table]
    found = {}
    for driver, options in _table(path, table, value).items():
        pairs = []
        for key, option in _table(path, f"{table}.{driver}", options).items():
            if not isinstance(option, (str, int)):
                raise InvalidError(
                    f"cannot use {path}: {table}.{driver}.{key} must be a string, number or boolean"
                )
            pairs.append(f"{key}={str(option).lower() if isinstance(option, bool) else option}")
        found[kind, driver] = tuple(pairs)
    return found


def _table(path: str, name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidError(f"cannot use {path}: {name} must be a table")
    return value


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint that names the nearest of ``known``, or else all of them."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(known)}" if known else ""
