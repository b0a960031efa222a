"""The steps that make a container and start it, in order; ctr.undo is the same list reversed.

``bring_up`` runs them under the journal.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from ctr import encoding, netfiles
from ctr.compiler import FILES, Inputs, Program, compile_program
from ctr.drivers import HookContext
from ctr.errors import NotFoundError, UnsupportedError
from ctr.launch import spawn
from ctr.lifecycle import Step
from ctr.models import Endpoint, NamespaceRequest, SnapshotOptions
from ctr.security import users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ctr.engine import Engine
    from ctr.launch import Supervisor
    from ctr.lifecycle import Journal
    from ctr.models import Mount, Network
    from ctr.security.seccomp import Filter
    from ctr.security.users import Identity
    from ctr.spec import ContainerSpec

#: The steps by which a container is known.
RECORD = frozenset({"record", "folders"})
#: The steps that hold what only a running container has.
START = frozenset({"cgroup", "address", "supervisor", "endpoint"})


class Start:
    """One container on its way from a specification to a running process."""

    def __init__(
        self,
        engine: Engine,
        spec: ContainerSpec,
        accounts: tuple[bytes, bytes],
        streams: tuple[int, int, int],
        journal: Journal,
        find_network: Callable[[str], Network] | None = None,
    ) -> None:
        self.engine = engine
        self.find_network = find_network or engine.network
        self.spec = spec
        self.streams = streams
        self.journal = journal
        self.identity: Identity = users.resolve(spec.user, *accounts, spec.group_add)
        self.folder = engine.container_folder(spec.id)
        self.run_dir = engine.run_folder(spec.id)
        self.root_mounts: list[Mount] = []
        self.sources: list[str] = []
        self.endpoint: Endpoint | None = None
        self.network: Network | None = None
        self.supervisor: Supervisor | None = None
        self.pid = 0

    def steps(self) -> Iterator[Step]:
        """The steps; later ones use what earlier ones found."""
        spec = self.spec
        driver = self.engine.driver_record
        yield Step("record", {}, self.record, f"record container {spec.name} as creating")
        yield Step("folders", {}, self.folders, f"make {self.folder} and {self.run_dir}")
        if spec.mounts:
            anonymous = [mount.source for mount in spec.mounts if mount.anonymous]
            targets = ", ".join(mount.target for mount in spec.mounts)
            yield Step("volumes", {"names": anonymous}, self.volumes, f"find mounts for {targets}")
        yield Step(
            "snapshot",
            {**driver("storage", spec.storage), "key": spec.id},
            self.snapshot,
            f"{spec.storage}: prepare snapshot {spec.id[:12]} of {spec.chain_id[:19]}",
        )
        if any(mount.kind == "volume" and mount.copy for mount in spec.mounts):
            record = {**driver("storage", spec.storage), "key": f"copy-{spec.id}"}
            yield Step(
                "volume-copy", record, self.copy_up, "copy the image's content to empty volumes"
            )
        yield Step(
            "cgroup",
            {**driver("cgroup", spec.cgroups), "group": spec.cgroup_group},
            self.cgroup,
            f"{spec.cgroups}: make control group {spec.cgroup_group}",
        )
        if spec.network_driver:
            self.network = self.find_network(spec.network)
            yield Step("address", {}, self.address, f"choose an address in {self.network.subnet}")
        yield Step("supervisor", {}, self.launch, "spawn the supervisor, run the launch program")

    # -- create ---------------------------------------------------------------------------

    def record(self) -> None:
        spec = self.spec
        self.engine.state.add_container(
            spec.id, spec.name, "creating", time.time_ns(), spec.image, spec._asdict()
        )

    def folders(self) -> None:
        os.mkdir(self.folder, 0o700)
        os.mkdir(self.run_dir, 0o700)

    def volumes(self) -> None:
        from ctr import volumes

        spec = self.spec
        self.sources = [volumes.resolve(self.engine.state, mount, spec.id) for mount in spec.mounts]

    def snapshot(self) -> None:
        spec = self.spec
        options = SnapshotOptions(volatile=spec.rm, uid_map=spec.uid_map, gid_map=spec.gid_map)
        if spec.uid_map and "userns" not in self.engine.capabilities("storage", spec.storage):
            raise UnsupportedError(
                f"cannot use --userns with storage driver {spec.storage}: it can't map ids",
                hint="choose another --storage; `ctr drivers` lists them",
            )
        storage = self.engine.storage(spec.storage)
        try:
            self.root_mounts = storage.prepare(spec.id, spec.chain_id, options)
        except NotFoundError:  # not unpacked for this driver yet, or its cache was dropped
            self.engine.unpack(spec.image_id, spec.storage)
            self.root_mounts = storage.prepare(spec.id, spec.chain_id, options)

    def copy_up(self) -> None:
        """Fill empty volumes with what the image has there, from a snapshot of its own."""
        from ctr import volumes

        spec = self.spec
        storage = self.engine.storage(spec.storage)
        key = f"copy-{spec.id}"
        options = SnapshotOptions(uid_map=spec.uid_map, gid_map=spec.gid_map)
        volumes.copy_up(storage.prepare(key, spec.chain_id, options), spec.mounts, self.sources)
        storage.remove(key)

    # -- start ----------------------------------------------------------------------------

    def cgroup(self) -> None:
        self.engine.cgroups(self.spec.cgroups).create(self.spec.cgroup_group, self.spec.resources)

    def address(self) -> None:
        from ctr import ipam

        network = self.network
        assert network is not None
        address = self.engine.state.allocate_address(
            network.name,
            self.spec.id,
            lambda used: ipam.next_address(network.subnet, network.gateway, used),
        )
        identity = os.urandom(16).hex()
        self.endpoint = Endpoint(
            id=identity,
            container=self.spec.id,
            network=network.name,
            address=address,
            gateway=network.gateway,
            mac=ipam.mac_for(address),
            host_interface=ipam.host_interface_name(identity),
        )

    def launch(self) -> None:
        program = self.program()
        timeline = self.engine.timeline
        timeline.mark("compile")
        trace = self.engine.trace
        if self.engine.launcher == "reference":
            from ctr.launcher.reference_executor import check

            check(program.operations)
        data = encoding.encode(program.operations, flags=encoding.TRACE if trace else 0)
        self.supervisor = spawn(
            self.engine.launcher,
            self.spec.id,
            data,
            self.run_dir,
            self.streams,
            self.engine.cleaner(self.spec.id),
            self.engine.supervisor_environment(),
        )
        timeline.mark("spawn")
        try:
            self.pid = self.supervisor.start(
                program.operations, self.spec.name, self.on_sync, trace
            )
        except BaseException:
            self.supervisor.abandon()
            raise
        timeline.operation(None)
        timeline.mark("execute")

    def program(self) -> Program:
        """Compile the launch program; writes the container's files first."""
        return compile_program(
            inputs(
                self.engine,
                self.spec,
                self.root_mounts,
                self.sources,
                self.files(),
                self.identity,
                os.path.join(self.engine.settings.root, "seccomp"),
            )
        )

    def files(self) -> dict[str, str]:
        """Write resolv.conf, hostname and hosts; return their paths by name."""
        spec = self.spec
        mode = spec.namespaces["network"][0]
        if spec.network.startswith("container:"):  # shares them with the network's owner
            folder = self.engine.container_folder(spec.network.partition(":")[2])
            return {name: os.path.join(folder, name) for name in FILES}
        owner = (map_root(spec.uid_map), map_root(spec.gid_map))
        paths = {}
        for name, text in network_files(spec, self.endpoint, host=mode == "host").items():
            path = os.path.join(self.folder, name)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                if owner != (0, 0):
                    os.fchown(descriptor, *owner)
            paths[name] = path
        return paths

    def on_sync(self, point: int, pid: int) -> None:
        if point == 1 and self.endpoint and self.network:
            self.attach(pid)
        hook = {1: "ctr_create_runtime", 2: "ctr_create_container", 3: "ctr_start_container"}[point]
        self.engine.call_hook(hook, self.spec, pid)
        self.engine.timeline.mark(f"launch to sync point {'?ABC'[point]}")

    def attach(self, pid: int) -> None:
        from ctr.lifecycle import Entry

        assert self.endpoint is not None
        assert self.network is not None
        driver = self.engine.network_driver(self.network.driver)
        record = {
            **self.engine.driver_record("network", self.network.driver),
            "network": list(self.network),
            "endpoint": list(self.endpoint),
        }
        self.journal.begin(Entry("endpoint", record))
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                driver.attach(self.network, self.endpoint, descriptor)
            except NotFoundError:  # the bridge is gone: a reboot, or somebody removed it
                driver.create_network(self.network)
                driver.attach(self.network, self.endpoint, descriptor)
        finally:
            os.close(descriptor)
        plugin = self.engine.offer("network", self.network.driver).plugin
        self.engine.timeline.mark("attach", plugin)


def inputs(
    engine: Engine,
    spec: ContainerSpec,
    root_mounts: list[Mount],
    sources: list[str],
    files: dict[str, str],
    identity: Identity,
    seccomp_cache: str,
) -> Inputs:
    """What the compiler needs, from the drivers that the specification names."""
    storage = engine.offer("storage", spec.storage)
    cgroups = engine.offer("cgroup", spec.cgroups)
    home = any(entry.startswith("HOME=") for entry in spec.environment)
    if not home:
        environment = (*spec.environment, f"HOME={identity.home or '/'}")
        spec = spec._replace(environment=environment)
    return Inputs(
        spec=spec,
        root_mounts=root_mounts,
        sources=sources or ["" for _ in spec.mounts],
        files=files,
        identity=identity,
        seccomp=_seccomp(spec, seccomp_cache),
        namespaces=[
            (engine.offer("namespace", kind).plugin, engine.namespace(kind), request)
            for kind, request in namespace_requests(spec).items()
        ],
        cgroup=engine.cgroups(spec.cgroups),
        storage_plugin=storage.plugin,
        cgroup_plugin=cgroups.plugin,
    )


def namespace_requests(spec: ContainerSpec) -> dict[str, NamespaceRequest]:
    """What is asked of each type of namespace that is not the host's."""
    offsets = dict(spec.time_offsets)
    requests = {}
    for kind, (mode, path) in spec.namespaces.items():
        request = NamespaceRequest(mode, path, user_namespace=spec.private("user"))
        if kind == "uts" and mode == "private":
            request = request._replace(hostname=spec.hostname, domainname=spec.domainname)
        elif kind == "user":
            request = request._replace(uid_map=spec.uid_map, gid_map=spec.gid_map)
        elif kind == "time":
            request = request._replace(
                monotonic_ns=offsets.get("monotonic", 0), boottime_ns=offsets.get("boottime", 0)
            )
        if mode != "host":
            requests[kind] = request
    return requests


def network_files(spec: ContainerSpec, endpoint: Endpoint | None, *, host: bool) -> dict[str, str]:
    """The texts of resolv.conf, hostname and hosts."""
    gateway = endpoint.gateway if endpoint else ""
    extra = [netfiles.parse_add_host(text, gateway) for text in spec.add_host]
    return {
        "resolv.conf": netfiles.resolv_conf(
            netfiles.host_resolv_conf(host_network=host),
            spec.dns,
            spec.dns_search,
            spec.dns_options,
            host_network=host,
        ),
        "hostname": f"{spec.hostname}\n",
        "hosts": netfiles.hosts(
            spec.hostname,
            spec.domainname,
            endpoint.address.partition("/")[0] if endpoint else "",
            extra,
            host_text=_host_file("/etc/hosts") if host else None,
        ),
    }


def _seccomp(spec: ContainerSpec, cache: str) -> Filter | None:
    """The filter that the specification asks for; without ``cache`` nothing is kept."""
    if spec.seccomp == "unconfined":
        return None
    from ctr.security import seccomp

    if spec.seccomp == "default":
        return seccomp.default_filter(spec.capabilities, cache)
    return seccomp.filter_from_file(spec.seccomp, spec.capabilities)


def hook_context(
    spec: ContainerSpec, pid: int, bundle: str, namespaces: dict[str, int]
) -> HookContext:
    """What OCI hook points are told."""
    return HookContext(spec.id, spec.name, pid, bundle, namespaces, spec.annotations)


def map_root(maps: tuple[Any, ...]) -> int:
    """The host's id of id 0 inside; without a map 0."""
    return next((outside - inside for inside, outside, _ in maps if inside == 0), 0)


def _host_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""
