"""The cached index of installed plugins: what each entry point offers, without importing it.

Finding entry points by importlib.metadata costs 35 ms and importing every plugin more; so
the answer is kept in a file and used for as long as the folders of ``sys.path`` (which any
install or uninstall changes) and the plugins' own files have the same times.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from ctr.drivers import API, KINDS, DriverInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.metadata import EntryPoint

    from pluggy import PluginManager

#: The version of the file's format.
FORMAT = 1

#: The hook that offers the drivers of each kind.
DRIVER_HOOKS = {
    "storage": "ctr_storage_drivers",
    "network": "ctr_network_drivers",
    "cgroup": "ctr_cgroup_drivers",
    "namespace": "ctr_namespaces",
}

_DRIVER_NAME = r"[a-z0-9][a-z0-9_-]{0,31}"


class Plugin(NamedTuple):
    """One entry point of the group ``ctr``.

    ``hooks`` are the hooks that it implements, ``drivers`` the (kind, name) that it offers;
    both are empty when ``error`` says why the plugin is skipped.
    """

    name: str
    value: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    drivers: tuple[tuple[str, str], ...] = ()
    error: str = ""


def cache_folder(environment: Mapping[str, str]) -> str:
    """Where the index is kept."""
    base = environment.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        return os.path.join(base, "ctr")
    return "/var/cache/ctr" if not os.geteuid() else os.path.expanduser("~/.cache/ctr")


def load(folder: str) -> list[Plugin]:
    """Return the index, from the file in ``folder`` when it is valid, else built anew.

    A folder that can't be written to costs time and nothing else.
    """
    cached = _read(_file(folder))
    return refresh(folder) if cached is None else cached


def refresh(folder: str) -> list[Plugin]:
    """Build the index anew, keep it in ``folder`` and return it."""
    stamps = _stamps(sys.path)  # before: what changes meanwhile makes the file invalid
    plugins, files = build()
    _write(_file(folder), plugins, stamps | _stamps(files))
    return plugins


def build() -> tuple[list[Plugin], list[str]]:
    """Import every plugin, each guarded; return them by name, and the files they came from.

    A second entry point of one name, or a second driver of one name and kind, is an error
    of the second, in the order of the distributions' names.
    """
    from importlib.metadata import entry_points

    import pluggy

    from ctr import hookspecs

    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    plugins: list[Plugin] = []
    files: list[str] = []
    found = entry_points(group=hookspecs.GROUP)
    for entry in sorted(found, key=lambda entry: (entry.name, _distribution(entry)[0])):
        plugin = Plugin(entry.name, entry.value, *_distribution(entry))
        try:
            _refuse_same_name(plugin, plugins)
            hooks, drivers = inspect(manager, plugin, entry.load())
            _refuse_same_driver(drivers, plugins)
            plugin = plugin._replace(hooks=hooks, drivers=drivers)
        except (Exception, SystemExit) as error:  # whatever a third party raises
            plugin = plugin._replace(error=_one_line(error))
        plugins.append(plugin)
        files.extend(_source(entry.module))
    return plugins, files


def inspect(
    manager: PluginManager, plugin: Plugin, module: object
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Register ``module``; return its hooks and drivers.  Raises whatever it raises."""
    register(manager, plugin, module)
    try:
        hooks = tuple(sorted(caller.name for caller in manager.get_hookcallers(module) or []))
        drivers = tuple(
            (kind, info.name)
            for kind in KINDS
            if DRIVER_HOOKS[kind] in hooks
            for info in offers(manager, kind, module)
        )
    except BaseException:
        manager.unregister(module)
        raise
    if not hooks:
        manager.unregister(module)
        raise ValueError(f"{plugin.value} implements no hook of ctr")
    return hooks, drivers


def register(manager: PluginManager, plugin: Plugin, module: object) -> None:
    """Register one plugin; raise PluginValidationError, and forget it, if a hook is wrong."""
    try:
        manager.register(module, name=plugin.name)
        manager.check_pending()
    except BaseException:
        if manager.is_registered(module):
            manager.unregister(module)
        raise


def offers(manager: PluginManager, kind: str, module: object) -> list[DriverInfo[object]]:
    """The drivers of ``kind`` that one plugin offers, checked.  Raises whatever it raises."""
    name = DRIVER_HOOKS[kind]
    others = [plugin for plugin in manager.get_plugins() if plugin is not module]
    caller = manager.subset_hook_caller(name, others)
    infos = [info for result in caller() for info in result]
    for info in infos:
        if not isinstance(info, DriverInfo):
            raise TypeError(f"{name} offers {info!r}, which is no DriverInfo")
        if info.api != API:
            raise ValueError(
                f"driver {info.name} is for version {info.api} of the driver interface, this ctr"
                f" has version {API}"
            )
        # It becomes part of a path.
        if not re.fullmatch(_DRIVER_NAME, str(info.name)):
            raise ValueError(f"{info.name!r} is no name for a driver")
    return infos


def _refuse_same_name(plugin: Plugin, others: Iterable[Plugin]) -> None:
    for other in others:
        if other.name == plugin.name:
            raise ValueError(
                f"distributions {other.distribution} and {plugin.distribution} both have an entry"
                f" point {plugin.name!r}"
            )


def _refuse_same_driver(drivers: tuple[tuple[str, str], ...], others: Iterable[Plugin]) -> None:
    for other in others:
        for kind, name in drivers:
            if (kind, name) in other.drivers:
                raise ValueError(
                    f"{kind} driver {name!r} is already offered by plugin {other.name} of"
                    f" distribution {other.distribution}"
                )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "unknown", "unknown"
    return entry.dist.name, entry.dist.version


def _source(module: str) -> list[str]:
    """The file of a module, found without importing it."""
    import importlib.util

    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return []
    return [spec.origin] if spec is not None and spec.origin else []


def _file(folder: str) -> str:
    """One file for each interpreter and search path; hash() differs from process to process."""
    import zlib

    key = "\0".join([sys.version, sys.prefix, *sys.path]).encode(errors="surrogateescape")
    return os.path.join(folder, f"plugins-{zlib.crc32(key):08x}-{zlib.adler32(key):08x}.json")


def _stamps(paths: Iterable[str]) -> dict[str, int]:
    """The time of last change of each path; 0 where there is nothing."""
    stamps = {}
    for path in paths:
        try:
            stamps[path] = os.stat(path or ".").st_mtime_ns
        except OSError:
            stamps[path] = 0
    return stamps


def _read(path: str) -> list[Plugin] | None:
    """The plugins in the file, or None when it isn't there, valid or trustworthy."""
    try:
        if not _trusted(os.stat(os.path.dirname(path))):
            return None
        with open(path, encoding="utf-8", opener=_no_follow) as file:
            if not _trusted(os.fstat(file.fileno())):
                return None
            record = json.load(file)
        stamps = record["stamps"]
        if record["format"] != FORMAT or record["api"] != API or _stamps(stamps) != stamps:
            return None
        if not set(sys.path) <= stamps.keys():
            return None
        return [
            Plugin(
                name, value, distribution, version, tuple(hooks), tuple(map(tuple, drivers)), error
            )
            for name, value, distribution, version, hooks, drivers, error in record["plugins"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _trusted(status: os.stat_result) -> bool:
    """Whether nobody else could have written it: it decides which code is imported."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write(path: str, plugins: list[Plugin], stamps: dict[str, int]) -> None:
    record = {"format": FORMAT, "api": API, "stamps": stamps, "plugins": plugins}
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", opener=_create) as file:
            json.dump(record, file)
        os.replace(temporary, path)
    except OSError:
        return


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
