"""The engine: what every face (command line, API, tests) calls.

An Engine is one root with its drivers.  It has no global state; several may live in one
process, and a resident service may keep one warm.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr import journal, supervision
from ctr.errors import ConflictError, NotFoundError, PrivilegeError, UnsupportedError
from ctr.launch import Exit, Supervisor, choose_launcher
from ctr.lifecycle import bring_up
from ctr.settle import Drivers, ImageFacts, settle
from ctr.start import Start, hook_context
from ctr.state import ContainerRow, State
from ctr.timing import Timeline
from ctr.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ctr.config import Settings
    from ctr.drivers import CgroupDriver, NamespaceDriver, NetworkDriver, Probe, StorageDriver
    from ctr.images.store import ContentStore, Image
    from ctr.models import Network
    from ctr.plugins import Offer, PluginHost
    from ctr.program import Operation
    from ctr.spec import ContainerOptions, ContainerSpec


class Running(NamedTuple):
    """A container that this process has started, past its commit point."""

    spec: ContainerSpec
    supervisor: Supervisor
    pid: int


class Engine:
    """Containers below one root.

    Making one touches nothing.  The first use of ``state`` opens the database and undoes
    what a ctr that died has left half-done; it raises PrivilegeError or StateError when the
    root can't be used.
    """

    def __init__(
        self,
        settings: Settings,
        host: PluginHost,
        *,
        timeline: Timeline | None = None,
        trace: Callable[[Operation], None] | None = None,
        warn: Callable[[str], None] = lambda _: None,
        launcher: str = "",
    ) -> None:
        self.settings = settings
        self.host = host
        self.timeline = timeline or Timeline()
        self.trace = trace
        self.warn = warn
        self._launcher = launcher
        self._offers: dict[tuple[str, str], Offer] = {}
        self._drivers: dict[tuple[str, str], Any] = {}
        self._state: State | None = None

    @property
    def state(self) -> State:
        """The database and folders, opened and swept at the first use."""
        if self._state is None:
            self.check_root()
            self._state = State(self.settings.root, self.settings.run_root)
            if self.settings.plugins:
                from ctr import recovery

                recovery.after_reboot(self)
                recovery.sweep(self)
        return self._state

    def check_root(self) -> None:
        """Raise PrivilegeError unless this process is root's."""
        if os.geteuid() != 0:
            raise PrivilegeError(
                f"cannot open {self.settings.root}: ctr must run as root",
                hint="use sudo; rootless containers are not supported yet",
            )

    def close(self) -> None:
        """Close the database."""
        if self._state is not None:
            self._state.close()
            self._state = None

    # -- drivers --------------------------------------------------------------------------

    def offer(self, kind: str, name: str) -> Offer:
        """The driver ``name`` on offer.  Raises NotFoundError with the alternatives."""
        key = (kind, name)
        if key not in self._offers:
            self._offers[key] = self.host.driver(kind, name)
        return self._offers[key]

    def chosen(self, kind: str) -> str:
        """The name of the driver that the settings choose.

        Raises NotFoundError; for an explicit choice that can't work here UnsupportedError,
        which says why and what else there is.
        """
        offer = self.host.choose(kind, self.settings)
        name = offer.info.name
        self._offers[kind, name] = offer
        source = self.settings.source(kind)
        if source:
            probe = self._probe(offer)
            if not probe.ok:
                others = [
                    other if found.ok else f"{other} ({found.reason})"
                    for other, found in self._probes(kind)
                    if other != name
                ]
                raise UnsupportedError(
                    f"cannot use {kind} driver {name} (chosen by {source}): {probe.reason}",
                    hint=f"the others: {', '.join(others) or 'none'}"
                    + (f"; {probe.hint}" if probe.hint else ""),
                )
        return name

    def _probe(self, offer: Offer) -> Probe:
        return self.host.probe(offer, self.settings)

    def _probes(self, kind: str) -> list[tuple[str, Probe]]:
        return [(name, self._probe(offer)) for name, offer in self.host.drivers(kind).items()]

    def options(self, kind: str, name: str) -> object:
        """A driver's options as an instance of its class; None when none was given."""
        return self.host.options(self.offer(kind, name), self.settings)

    def driver(self, kind: str, name: str) -> Any:
        """A driver, opened once.  Raises NotFoundError or DriverError."""
        key = (kind, name)
        if key not in self._drivers:
            offer = self.offer(kind, name)
            context = self.settings.context(kind, name, self.options(kind, name))
            self._drivers[key] = self.host.open(offer, context)
        return self._drivers[key]

    def storage(self, name: str) -> StorageDriver:
        """The storage driver ``name``, opened."""
        driver: StorageDriver = self.driver("storage", name)
        return driver

    def network_driver(self, name: str) -> NetworkDriver:
        """The network driver ``name``, opened."""
        driver: NetworkDriver = self.driver("network", name)
        return driver

    def cgroups(self, name: str) -> CgroupDriver:
        """The cgroup driver ``name``, opened."""
        driver: CgroupDriver = self.driver("cgroup", name)
        return driver

    def namespace(self, name: str) -> NamespaceDriver:
        """The driver of a type of namespace."""
        driver: NamespaceDriver = self.driver("namespace", name)
        return driver

    def capabilities(self, kind: str, name: str) -> frozenset[str]:
        """What a driver declares that it can."""
        return self.offer(kind, name).info.capabilities

    def driver_record(self, kind: str, name: str) -> dict[str, Any]:
        """What the journal says of a driver, so that its undo is possible, or explainable."""
        offer = self.offer(kind, name)
        return {
            "kind": kind,
            "driver": name,
            "distribution": offer.distribution,
            "api": offer.info.api,
        }

    def call_hook(self, hook: str, spec: ContainerSpec, pid: int) -> None:
        """Call an OCI hook point that may fail the start."""
        if not self.host.implements(hook):
            return
        names = os.listdir(f"/proc/{pid}/ns")
        namespaces = {
            name: os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            for name in names
            if not name.endswith("_for_children")
        }
        try:
            context = hook_context(spec, pid, self.container_folder(spec.id), namespaces)
            self.host.call(hook, context=context)
        finally:
            for descriptor in namespaces.values():
                os.close(descriptor)

    # -- places ---------------------------------------------------------------------------

    def container_folder(self, container: str) -> str:
        """A container's persistent folder."""
        return os.path.join(self.settings.root, "containers", container)

    def run_folder(self, container: str) -> str:
        """A container's folder for lock and status."""
        return os.path.join(self.settings.run_root, "containers", container)

    # -- launching ------------------------------------------------------------------------

    @property
    def launcher(self) -> str:
        """The executor: native or reference."""
        return choose_launcher(self._launcher)

    def cleaner(self, container: str) -> list[str]:
        """The command by which a supervisor has a container's end seen to."""
        root, run_root = map(os.path.abspath, (self.settings.root, self.settings.run_root))
        return [sys.executable, "-m", "ctr.cleanup", root, run_root, container]

    def supervisor_environment(self) -> dict[str, str]:
        """What of the environment supervisors and their cleaners get."""
        kept = ("PATH", "LANG", "HOME", "PYTHONPATH", "VIRTUAL_ENV")
        return {
            key: value
            for key, value in os.environ.items()
            if key in kept or key.startswith(("CTR_", "XDG_", "LC_", "COVERAGE_"))
        }

    # -- images ---------------------------------------------------------------------------

    @property
    def content(self) -> ContentStore:
        """The content store."""
        from ctr.images.store import ContentStore

        return ContentStore(os.path.join(self.settings.root, "content"))

    def image(self, reference: str, *, make: bool = True) -> Image:
        """Find an image.  A missing ``base`` is made; with ``make`` off, foretold.

        Raises NotFoundError.
        """
        try:
            return self.content.resolve(reference)
        except NotFoundError:
            from ctr.images import base

            if not base.is_base(reference):
                raise
            return base.ensure_base(self.content) if make else base.to_be_made()

    def unpack(self, image: str, storage: str) -> str:
        """Unpack an image for a storage driver; returns the top snapshot's name."""
        from ctr.images.unpack import unpack

        with self.state.lock("gc", shared=True):
            return unpack(
                self.content,
                self.content.resolve(image),
                self.storage(storage),
                storage,
                state_root=self.settings.root,
            )

    def network(self, name: str) -> Network:
        """A network's record; the default one is made when it is missing."""
        from ctr import networks

        return networks.ensure(self, name)

    # -- containers -----------------------------------------------------------------------

    def specify(
        self, image: str, command: Sequence[str], options: ContainerOptions, *, make: bool = True
    ) -> tuple[ContainerSpec, Image]:
        """Settle what a container would be; ``make`` as in ``image``."""
        from ctr.images import config
        from ctr.parse import check_name

        if make:
            self.check_root()
        if options.name:
            check_name(options.name)
        # Resolved first: a driver's name that is wrong costs nothing but the message.
        storage, cgroups = self.chosen("storage"), self.chosen("cgroup")
        networked = options.network not in ("none", "host") and ":" not in options.network
        network = self.chosen("network") if networked else ""
        found = self.image(image, make=make)
        container = os.urandom(32).hex()
        facts = ImageFacts(image, found.id, found.top, config.parse(found.config))
        spec = settle(
            container,
            options.name or _random_name(container),
            facts,
            tuple(command),
            options,
            Drivers(storage, network, cgroups),
            self.pid_of,
        )
        return spec, found

    def start(
        self,
        spec: ContainerSpec,
        image: Image,
        streams: tuple[int, int, int],
    ) -> Running:
        """Make the container and start it; ``streams`` as ctr.launch.spawn takes them.

        On return the command was executed: the commit point.  Before it everything is
        rolled back.  Raises LaunchError and whatever a step raises.
        """
        accounts = self.accounts(image, spec.storage)
        with (
            self.state.lock("gc", shared=True),
            journal.FileJournal.create(self.settings.root, spec.id) as log,
        ):
            start = Start(self, spec, accounts, streams, log)
            try:
                bring_up(self._timed(start), log, Undo(self, spec.id))
            except BaseException:
                if not log.begun():
                    log.discard()
                raise
            self.state.set_container(spec.id, state="running", pid=start.pid)
            log.hold()
        self.timeline.mark("commit")
        supervisor = start.supervisor
        assert supervisor is not None
        if self.host.implements("ctr_poststart"):
            context = hook_context(spec, start.pid, self.container_folder(spec.id), {})
            self.host.warn_call("ctr_poststart", context=context)
        return Running(start.spec, supervisor, start.pid)

    def _timed(self, start: Start) -> Any:
        for step in start.steps():
            yield step
            if step.name == "supervisor":
                continue  # it has phases of its own
            driver = step.record.get("driver")
            plugin = self.offer(step.record["kind"], driver).plugin if driver else "core"
            self.timeline.mark(step.name, plugin)

    def accounts(self, image: Image, storage: str) -> tuple[bytes, bytes]:
        """The image's passwd and group files; unpacks it for ``storage`` when never done."""
        from ctr.images.accounts import accounts

        try:
            return accounts(self.settings.root, image.top)
        except FileNotFoundError:
            self.unpack(image.id, storage)
            return accounts(self.settings.root, image.top)

    def finish(self, container: str, ended: Exit | None = None) -> None:
        """See to a container that has ended: record it, release what it held."""
        from ctr import recovery

        recovery.finish(self, container, ended)

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> ContainerRow:
        """Remove a container.  A running one only with ``force``.

        Raises ConflictError, NotFoundError, DriverError (a driver is not installed; with
        ``force`` what that driver holds is left behind with a warning).
        """
        from ctr import recovery

        return recovery.remove(self, reference, force=force, volumes=volumes)

    def containers(self) -> list[ContainerRow]:
        """All containers, newest first, with states as they are now."""
        return [self.refresh(row) for row in self.state.containers()]

    def container(self, reference: str) -> ContainerRow:
        """One container as it is now.  Raises NotFoundError or ConflictError."""
        return self.refresh(self.state.container(reference))

    def refresh(self, row: ContainerRow) -> ContainerRow:
        """Merge a row with what its supervisor says."""
        if row.state not in ("running", "paused"):
            return row
        run_dir = self.run_folder(row.id)
        status = supervision.read_status(run_dir)
        if status.exited:
            return row._replace(
                state="exited",
                pid=0,
                exit_code=status.exit_code,
                oom=status.oom,
                started_ns=status.started_ns,
                finished_ns=status.finished_ns,
            )
        if not supervision.alive(run_dir):
            return row._replace(state="dead", pid=0, exit_code=137, error="the supervisor died")
        return row._replace(pid=status.pid, started_ns=status.started_ns)

    def pid_of(self, reference: str) -> tuple[str, int]:
        """ID and PID of a running container.  Raises NotFoundError or ConflictError."""
        row = self.container(reference)
        if row.state not in ("running", "paused"):
            raise ConflictError(f"cannot join container {row.name}: it is {row.state}")
        return row.id, row.pid


def _random_name(container: str) -> str:
    """A name for a container that was given none: two words, chosen by its ID."""
    from ctr import names

    return names.for_id(container)
