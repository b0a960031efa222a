"""The plugin host: a typed façade over the entry points of the group ``ctr``.

Each plugin is loaded on its own and only when a hook that it implements is called.  One that
is broken, outdated or a duplicate is named in one warning and skipped; it never takes the
others, or the command that would uninstall it, with it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr import plugin_index
from ctr.drivers import DriverInfo, Probe
from ctr.errors import CtrError, DriverError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pluggy

    from ctr.config import Settings
    from ctr.drivers import DriverContext
    from ctr.plugin_index import Plugin

#: In this order the default cgroup driver is looked for.
CGROUP_DRIVERS = ("v2", "v1")


class Offer(NamedTuple):
    """One driver, and who offers it."""

    kind: str
    info: DriverInfo[Any]
    plugin: str
    distribution: str
    version: str


class Broken(NamedTuple):
    """A plugin that is skipped, and why."""

    name: str
    distribution: str
    version: str
    error: str


def _warn(message: str) -> None:
    print(f"ctr: warning: {message}", file=sys.stderr)


class PluginHost:
    """The installed plugins of one process; nothing is read before the first question.

    ``enabled`` False (``--no-plugins``): there are none.  ``environment`` may hold
    CTR_STRICT_PLUGINS=1 (a broken plugin is a DriverError) and CTR_TRACE_PLUGINS=1 (hook
    calls and what they return go to standard error).  ``warn`` is told one line.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        environment: Mapping[str, str] | None = None,
        warn: Callable[[str], None] = _warn,
    ) -> None:
        self.enabled = enabled
        self._environment = os.environ if environment is None else environment
        self._warn = warn
        self._plugins: list[Plugin] | None = None
        self._broken: list[Broken] = []
        self._loaded: dict[str, object] = {}
        self._manager: pluggy.PluginManager | None = None

    def plugins(self) -> list[Plugin]:
        """Every entry point, broken ones too, by name.  Warns of the broken ones once."""
        if self._plugins is None:
            folder = plugin_index.cache_folder(self._environment)
            self._use(plugin_index.load(folder) if self.enabled else [])
        return self._plugins or []

    def refresh(self) -> list[Plugin]:
        """Build the cached index anew; return what is in it."""
        self._broken.clear()
        self._use(plugin_index.refresh(plugin_index.cache_folder(self._environment)))
        return self.plugins()

    def broken(self) -> list[Broken]:
        """The plugins that are skipped, so far as is known yet."""
        self.plugins()
        return list(self._broken)

    def drivers(self, kind: str) -> dict[str, Offer]:
        """Every usable offer of drivers of ``kind``, by name."""
        offers = {}
        for plugin in self._implementing(plugin_index.DRIVER_HOOKS[kind]):
            for info in self._offers(plugin, kind):
                offers[info.name] = Offer(
                    kind, info, plugin.name, plugin.distribution, plugin.version
                )
        return dict(sorted(offers.items()))

    def driver(self, kind: str, name: str) -> Offer:
        """The driver ``name`` of ``kind``; imports the plugin that offers it and no other.

        Raises NotFoundError with the alternatives, and with the broken plugins that may
        have offered it in the hint.
        """
        for plugin in self.plugins():
            if (kind, name) in plugin.drivers and self._load(plugin):
                for info in self._offers(plugin, kind):
                    if info.name == name:
                        return Offer(kind, info, plugin.name, plugin.distribution, plugin.version)
        known = sorted(
            driver
            for plugin in self.plugins()
            for offered, driver in plugin.drivers
            if offered == kind
        )
        raise NotFoundError(
            f"cannot find {kind} driver {name!r}: {self._installed(known)}", hint=self._hint()
        )

    def choose(self, kind: str, settings: Settings) -> Offer:
        """The driver that the settings name; for cgroups without a choice the first usable.

        Raises NotFoundError, which names where an explicit choice was made, and InvalidError
        for options that the driver doesn't take: before anything is begun.
        """
        offer = self._chosen(kind, settings)
        self.options(offer, settings)
        return offer

    def options(self, offer: Offer, settings: Settings) -> object:
        """The driver's options as an instance of its class; None when none was given.

        Raises InvalidError for options that the driver doesn't take.
        """
        given = settings.options(offer.kind, offer.info.name)
        if not given:
            return None
        from ctr import options

        return options.parse(offer.info.name, offer.info.options, given)

    def open(self, offer: Offer, context: DriverContext) -> Any:
        """Call the driver's factory.  What it raises, but for a CtrError, is a DriverError."""
        try:
            return offer.info.factory(context)
        except CtrError:
            raise
        except Exception as error:  # whatever a third party raises
            raise DriverError(
                f"cannot open {offer.kind} driver {offer.info.name}: plugin {offer.plugin}"
                f" ({offer.distribution} {offer.version}): {_cause(error)}"
            ) from error

    def probe(self, offer: Offer, settings: Settings) -> Probe:
        """The driver's probe with the options that the settings give it.

        One that raises is a failed one, and so are options that the driver doesn't take.
        """
        try:
            options = self.options(offer, settings)
            result = offer.info.probe(settings.context(offer.kind, offer.info.name, options))
        except CtrError as error:
            return Probe(False, error.message, error.hint)
        except Exception as error:  # whatever a third party raises
            return Probe(False, f"probe failed: {_cause(error)}")
        if isinstance(result, Probe):
            return result
        return Probe(False, f"probe failed: it returned {result!r}")

    def implements(self, hook: str) -> bool:
        """Whether any plugin implements ``hook``, by the index: nothing is imported."""
        return any(hook in plugin.hooks and not plugin.error for plugin in self.plugins())

    def call(self, hook: str, **arguments: object) -> None:
        """Call every plugin's implementation of ``hook``.

        The first that raises ends it: DriverError, which names plugin and distribution.
        """
        for plugin in self._implementing(hook):
            error = self._call(plugin, hook, arguments)
            if error is not None:
                raise DriverError(_failure(plugin, hook, error)) from error

    def warn_call(self, hook: str, **arguments: object) -> None:
        """Call every plugin's implementation of ``hook``; one that raises is a warning."""
        for plugin in self._implementing(hook):
            error = self._call(plugin, hook, arguments)
            if error is not None:
                self._warn(_failure(plugin, hook, error))

    def _use(self, plugins: list[Plugin]) -> None:
        self._plugins = plugins
        for plugin in plugins:
            if plugin.error:
                self._skip(plugin, plugin.error)

    def _skip(self, plugin: Plugin, error: str) -> None:
        """Remember a broken plugin and warn, once."""
        if any(broken.name == plugin.name and broken.error == error for broken in self._broken):
            return
        self._broken.append(Broken(plugin.name, plugin.distribution, plugin.version, error))
        message = f"plugin {plugin.name} ({plugin.distribution} {plugin.version})"
        if self._environment.get("CTR_STRICT_PLUGINS") == "1":
            raise DriverError(f"cannot load {message}: {error}")
        self._warn(f"{message} is skipped: {error}")

    def _implementing(self, hook: str) -> Iterator[Plugin]:
        """The plugins that implement ``hook``, loaded."""
        for plugin in self.plugins():
            if hook in plugin.hooks and not plugin.error and self._load(plugin):
                yield plugin

    def _load(self, plugin: Plugin) -> bool:
        """Import and register a plugin; False when it turns out to be broken."""
        if plugin.name in self._loaded:
            return self._loaded[plugin.name] is not None
        import importlib

        self._loaded[plugin.name] = None
        module_name, _, attribute = plugin.value.partition(":")
        try:
            module: Any = importlib.import_module(module_name.strip())
            for part in filter(None, attribute.strip().split(".")):
                module = getattr(module, part)
            plugin_index.register(self._pluggy(), plugin, module)
        except (Exception, SystemExit) as error:  # whatever a third party raises
            self._skip(plugin, _cause(error))
            return False
        self._loaded[plugin.name] = module
        return True

    def _pluggy(self) -> pluggy.PluginManager:
        if self._manager is None:
            import pluggy

            from ctr import hookspecs

            self._manager = pluggy.PluginManager(hookspecs.GROUP)
            self._manager.add_hookspecs(hookspecs)
            if self._environment.get("CTR_TRACE_PLUGINS") == "1":
                self._manager.trace.root.setwriter(sys.stderr.write)
                self._manager.enable_tracing()
        return self._manager

    def _offers(self, plugin: Plugin, kind: str) -> list[DriverInfo[Any]]:
        try:
            return plugin_index.offers(self._pluggy(), kind, self._loaded[plugin.name])
        except Exception as error:  # whatever a third party raises
            self._skip(plugin, _cause(error))
            return []

    def _call(self, plugin: Plugin, hook: str, arguments: Mapping[str, object]) -> Exception | None:
        """Call one plugin's implementation.

        One by one: pluggy's own call loses the results of the others when one raises.
        """
        manager = self._pluggy()
        module = self._loaded[plugin.name]
        others = [other for other in manager.get_plugins() if other is not module]
        try:
            manager.subset_hook_caller(hook, others)(**arguments)
        except Exception as error:  # whatever a third party raises
            return error
        return None

    def _chosen(self, kind: str, settings: Settings) -> Offer:
        name = settings.driver(kind)
        if name is None:
            return self._first_usable(kind, settings)
        try:
            return self.driver(kind, name)
        except NotFoundError as error:
            source = settings.source(kind)
            if source:
                error.message += f" (chosen by {source})"
                error.args = (error.message,)
            raise

    def _first_usable(self, kind: str, settings: Settings) -> Offer:
        offers = self.drivers(kind)
        order = [name for name in CGROUP_DRIVERS if name in offers]
        reasons = []
        for name in [*order, *(name for name in offers if name not in CGROUP_DRIVERS)]:
            probe = self.probe(offers[name], settings)
            if probe.ok:
                return offers[name]
            reasons.append(f"{name}: {probe.reason}")
        why = "; ".join(reasons) if reasons else self._installed([])
        raise NotFoundError(f"cannot find a usable {kind} driver: {why}", hint=self._hint())

    def _installed(self, names: list[str]) -> str:
        return f"installed: {', '.join(names)}" if names else "none is installed"

    def _hint(self) -> str:
        if not self.enabled:
            return "plugins are switched off by --no-plugins"
        broken = ", ".join(f"{name} ({dist})" for name, dist, _, _ in self._broken)
        if broken:
            return f"broken plugins may offer it: {broken}; see `ctr plugin ls`"
        return "`ctr drivers` shows what is installed; drivers are installed with pip"


def _cause(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _failure(plugin: Plugin, hook: str, error: Exception) -> str:
    return (
        f"cannot run hook {hook}: plugin {plugin.name} ({plugin.distribution} {plugin.version}):"
        f" {_cause(error)}"
    )
