"""Ends of containers: the ordinary ones, and what a ctr that died has left."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from ctr import journal, supervision
from ctr.errors import ConflictError
from ctr.images.accounts import accounts_path
from ctr.lifecycle import check_transition, take_down
from ctr.models import Endpoint
from ctr.start import RECORD, START, hook_context
from ctr.state import ContainerRow, boot_id
from ctr.undo import PATIENCE, Undo

#: How long a start takes at most from its group to the process in it.
START_SECONDS = 1.0

if TYPE_CHECKING:
    from ctr.drivers import CgroupDriver
    from ctr.engine import Engine
    from ctr.journal import FileJournal
    from ctr.launch import Exit
    from ctr.supervision import Status


def sweep(engine: Engine) -> None:
    """Undo what unfinished operations of processes that died have left.

    Cheap when there is none: one listdir.  Whatever can't be undone is a warning, for it
    must not stop the command that happens to come next.
    """
    for container in journal.unfinished(engine.settings.root):
        log = journal.FileJournal.resume(engine.settings.root, container)
        if log is not None:
            with log:
                _settle(engine, container, log)


def after_reboot(engine: Engine) -> None:
    """See to containers that the last boot left as running."""
    boot = boot_id()
    if engine.state.meta("boot") == boot:
        return
    for container in journal.held(engine.settings.root):
        log = journal.FileJournal.resume(engine.settings.root, container)
        if log is not None:
            with log:
                _settle(engine, container, log)
    engine.state.set_meta("boot", boot)


def gc(engine: Engine) -> list[str]:
    """Release everything that no container needs; returns what went, a line each.

    Looks at every container and asks every usable driver.  Never touches a container whose
    supervisor lives.
    """
    with engine.state.lock("gc"):  # nobody is in the middle of a start
        return _gc(engine)


def _gc(engine: Engine) -> list[str]:
    sweep(engine)
    for row in engine.state.containers():
        if row.state in ("running", "paused") and not supervision.alive(engine.run_folder(row.id)):
            finish(engine, row.id)
    containers = {row.id: row for row in engine.state.containers()}
    removed = [*_stray_files(engine), *_stray_images(engine, containers)]
    for kind, valid in _valid_names(engine, containers).items():
        for name, offer in engine.host.drivers(kind).items():
            context = engine.settings.context(kind, name)
            if kind == "storage" and not os.path.isdir(context.root):
                continue  # never used
            if kind == "cgroup" and not engine.host.probe(offer, engine.settings).ok:
                continue  # its hierarchies are not here, and so no groups
            driver = engine.driver(kind, name)
            spared = _begun(driver, valid) if kind == "cgroup" else frozenset()
            removed += [f"{kind} {name}: {item}" for item in driver.gc(valid | spared)]
    return removed


def _begun(driver: CgroupDriver, valid: frozenset[str]) -> frozenset[str]:
    """The groups that another root may have made for a container that it is starting.

    All roots have their groups in one place and no lock in common: one that is empty now
    and filled or gone a moment later is no leftover.
    """
    stale = frozenset(driver.walk()) - valid
    if not stale:
        return frozenset()
    time.sleep(START_SECONDS)
    return frozenset(driver.walk()) - stale


def finish(engine: Engine, container: str, ended: Exit | None = None) -> None:
    """Record how a container ended and release what a stopped one does not hold."""
    log = journal.FileJournal.resume(engine.settings.root, container, wait=True)
    if log is None:
        return  # somebody else has seen to it
    with log:
        status = supervision.read_status(engine.run_folder(container))
        if ended is not None and not ended.lost:
            status = status._replace(
                exit_code=ended.status,
                oom=ended.oom,
                finished_ns=status.finished_ns or time.time_ns(),
            )
        _end(engine, container, log, status)


def remove(engine: Engine, reference: str, *, force: bool, volumes: bool) -> ContainerRow:
    """Remove a container; see Engine.remove."""
    row = engine.container(reference)
    if row.state in ("running", "paused"):
        if not force:
            raise ConflictError(
                f"cannot remove container {row.name}: it is {row.state}",
                hint="stop it first, or use -f",
            )
        kill(engine, row)
    check_transition(row.name, "exited" if row.state == "running" else row.state, "removing")
    log = journal.FileJournal.resume(engine.settings.root, row.id, wait=True)
    if log is None:  # --rm was quicker
        engine.state.drop_container(row.id)
        return row
    with log:
        log.reopen()
        engine.state.set_container(row.id, state="removing")
        try:
            _release(log, Undo(engine, row.id, force=force, keep_volumes=not volumes))
        except ExceptionGroup:
            engine.state.set_container(row.id, state="dead")
            log.hold()
            raise
        log.discard()
    return row


def kill(engine: Engine, row: ContainerRow) -> None:
    """End a running container with SIGKILL and wait for its supervisor to say so."""
    run_dir = engine.run_folder(row.id)
    pid = supervision.running_pid(run_dir)
    if pid:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # Asked again with the descriptor open: now the PID can't be another's.
            if supervision.running_pid(run_dir) == pid:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
    deadline = time.monotonic() + PATIENCE
    while not supervision.read_status(run_dir).exited and supervision.alive(run_dir):
        if time.monotonic() > deadline:
            raise ConflictError(f"cannot end container {row.name}: it does not die")
        time.sleep(0.005)


def _settle(engine: Engine, container: str, log: FileJournal) -> None:
    """Decide about a container whose process died in the middle of an operation."""
    run_dir = engine.run_folder(container)
    status = supervision.read_status(run_dir)
    if not status.started and supervision.alive(run_dir):
        # Its engine is dead, so it is about to end.
        supervision.wait_until_dead(run_dir, PATIENCE)
        status = supervision.read_status(run_dir)
    if status.started and not status.exited and supervision.alive(run_dir):
        engine.state.set_container(container, state="running", pid=status.pid)
        log.hold()
        return
    try:
        _end(engine, container, log, status)
    except ExceptionGroup as group:
        for error in group.exceptions:
            engine.warn(f"cannot clean up container {container[:12]}: {error}")


def _end(engine: Engine, container: str, log: FileJournal, status: Status) -> None:
    row = engine.state.find(container)
    committed = status.started or (row is not None and row.state not in ("creating", "removing"))
    log.reopen()
    undo = Undo(engine, container)
    if not committed or row is None or row.spec["rm"]:
        _release(log, undo)
        log.discard()
    else:
        lost = not status.exited
        engine.state.set_container(
            container,
            state="dead" if lost else "exited",
            pid=0,
            exit_code=137 if lost else status.exit_code,
            oom=int(status.oom),
            started_ns=status.started_ns or row.started_ns,
            finished_ns=status.finished_ns or time.time_ns(),
            error="the supervisor died" if lost else "",
        )
        take_down(log, undo, only=lambda entry: entry.step in START)
        log.hold()
    if committed and row and engine.host.implements("ctr_poststop"):
        from ctr.spec import from_json

        context = hook_context(from_json(row.spec), 0, engine.container_folder(container), {})
        engine.host.warn_call("ctr_poststop", context=context)


def _release(log: FileJournal, undo: Undo) -> None:
    """Undo everything, the record last: while anything is left, the container is listed."""
    take_down(log, undo, only=lambda entry: entry.step not in RECORD)
    take_down(log, undo)


def _stray_files(engine: Engine) -> list[str]:
    """Remove folders of containers and volumes that are on no record, and hidden journals."""
    import fcntl
    import shutil

    root = engine.settings.root
    known = {
        *journal.unfinished(root),
        *journal.held(root),
        *(row.id for row in engine.state.containers()),
    }
    volumes = {row.name for row in engine.state.volumes()}
    removed = []
    for parent, valid in (
        (os.path.join(root, "containers"), known),
        (os.path.join(engine.settings.run_root, "containers"), known),
        (os.path.join(root, "volumes"), volumes),
    ):
        for name in os.listdir(parent):
            if name not in valid:
                shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
                removed.append(os.path.join(parent, name))
    for name in os.listdir(os.path.join(root, "journal")):
        if name[0] == ".":
            path = os.path.join(root, "journal", name)
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
                removed.append(path)
            except (BlockingIOError, FileNotFoundError):
                pass  # its maker is at work
            finally:
                os.close(descriptor)
    return removed


def _stray_images(engine: Engine, containers: dict[str, ContainerRow]) -> list[str]:
    """Remove blobs and account files that no image and no container needs."""
    removed = engine.content.gc(row.spec["image_id"] for row in containers.values())
    chains = {
        *(image.top for image in engine.content.images()),
        *(row.spec["chain_id"] for row in containers.values()),
    }
    valid = {accounts_path(engine.settings.root, chain) for chain in chains}
    folder = os.path.join(engine.settings.root, "accounts")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        if path not in valid:
            os.unlink(path)
    return removed


def _valid_names(engine: Engine, containers: dict[str, ContainerRow]) -> dict[str, frozenset[str]]:
    """What each kind of driver must keep."""
    chains = {image.top for image in engine.content.images()}
    groups, links = set(), set()
    for container in containers:
        for entry in journal.peek(engine.settings.root, container):
            if entry.step == "cgroup":
                groups.add(entry.record["group"])
            elif entry.step == "endpoint":
                links.add(Endpoint(*entry.record["endpoint"]).host_interface)
    return {
        "storage": frozenset({*containers, *chains}),
        "network": frozenset(links),
        "cgroup": frozenset(groups),
    }
