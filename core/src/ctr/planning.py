"""What ``run`` would do, without touching the machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ctr import networks
from ctr.compiler import FILES, compile_program
from ctr.errors import NotFoundError
from ctr.journal import MemoryJournal
from ctr.models import Endpoint, Mount, Network
from ctr.start import Start, inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.engine import Engine
    from ctr.lifecycle import Step
    from ctr.program import Operation
    from ctr.spec import ContainerOptions, ContainerSpec


class Plan(NamedTuple):
    """Both parts of a start; ``attach`` tells what the network driver does at sync point A."""

    spec: ContainerSpec
    steps: list[Step]
    attach: list[str]
    operations: list[Operation]
    slots: tuple[str, ...]


def plan_run(engine: Engine, image: str, command: Sequence[str], options: ContainerOptions) -> Plan:
    """Plan a ``run``.  What only the act can tell stands in angle brackets.

    Raises what settling raises; a missing image is a NotFoundError.
    """
    spec, found = engine.specify(image, command, options, make=False)
    from ctr.images.accounts import accounts

    try:
        files = accounts(engine.settings.root, found.top)
    except FileNotFoundError:  # not unpacked yet; names can't be looked up then
        files = (b"root:x:0:0:root:/root:/bin/sh\n", b"")
    start = Start(
        engine, spec, files, (-1, -1, -1), MemoryJournal(), lambda name: _network(engine, name)
    )
    steps = list(start.steps())
    attach = []
    if start.network is not None:
        endpoint = Endpoint(
            "<id>", spec.id, start.network.name, "<ip>", start.network.gateway, "<mac>", "<veth>"
        )
        attach = engine.network_driver(start.network.driver).describe(start.network, endpoint)
    program = compile_program(
        inputs(
            engine,
            spec,
            [Mount(spec.storage, "<snapshot>", ("<layers>",))],
            [_source(engine, mount.kind, mount.source) for mount in spec.mounts],
            {name: os.path.join(start.folder, name) for name in FILES},
            start.identity,
            os.devnull,  # nothing is kept
        )
    )
    return Plan(spec, steps, attach, program.operations, program.slots)


def _network(engine: Engine, name: str) -> Network:
    """The network on record, or what the default one would be."""
    if os.path.exists(os.path.join(engine.settings.root, "ctr.db")):
        record = engine.state.network(name)
        if record is not None:
            return networks.from_json(record)
    if name != networks.DEFAULT:
        raise NotFoundError(f"cannot find network {name!r}")
    return networks.default(engine)


def _source(engine: Engine, kind: str, source: str) -> str:
    if kind == "volume":
        return os.path.join(engine.settings.root, "volumes", source, "_data")
    return source
