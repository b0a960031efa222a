"""What this machine can do for ctr, checked without changing anything."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from ctr import kernel
from ctr.drivers import KINDS
from ctr.errors import CtrError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ctr.config import Settings
    from ctr.plugins import PluginHost

OK = "ok"
#: Something that was not asked for can't be had.
WARNING = "warning"
#: The default set can't run.
PROBLEM = "problem"

#: Namespaces without which no container starts; the others are asked for one by one.
NEEDED_NAMESPACES = frozenset({"mount", "pid", "network", "ipc", "uts", "cgroup"})

#: Programs of the machine that make ``base`` useful, by Debian package.
TOOLS = {"ps": "procps", "ip": "iproute2", "nft": "nftables"}

# from linux/sched.h
_CLONE_THREAD = 0x00010000


class Check(NamedTuple):
    """One finding; ``remedy`` says what to do unless ``status`` is ok."""

    section: str
    name: str
    status: str
    detail: str = ""
    remedy: str = ""


def examine(settings: Settings, host: PluginHost) -> Iterator[Check]:
    """Yield every check.  Those with PROBLEM keep ``ctr run`` with these settings from working."""
    yield from _machine()
    yield from _kernel()
    yield from _launcher()
    yield from _state(settings)
    yield from _plugins(host)
    yield from _drivers(settings, host)


def _machine() -> Iterator[Check]:
    root = os.geteuid() == 0
    yield Check(
        "machine",
        "user",
        OK if root else PROBLEM,
        "root" if root else f"uid {os.geteuid()}",
        "" if root else "run ctr as root",
    )
    missing = _missing_capabilities() if root else []
    yield Check(
        "machine",
        "capabilities",
        WARNING if missing else OK,
        f"without {', '.join(missing)}" if missing else "all that a container gets by default",
        "give ctr's own container or service these capabilities" if missing else "",
    )
    for program, package in TOOLS.items():
        found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        yield Check(
            "machine",
            program,
            OK if found else WARNING,
            found or "not found",
            "" if found else f"apt install {package}",
        )


def _kernel() -> Iterator[Check]:
    yield Check("kernel", "version", OK, os.uname().release)
    features: dict[str, tuple[Callable[[], bool], str]] = {
        "openat2": (_has_openat2, "a kernel of version 5.6 or later"),
        "mount API": (_has_mount_api, "a kernel of version 5.12 or later"),
        "clone3": (_has_clone3, "a kernel of version 5.5 or later"),
        "pidfd": (_has_pidfd, "a kernel of version 5.3 or later"),
        "seccomp filters": (_has_seccomp, "a kernel with CONFIG_SECCOMP_FILTER"),
        "session keyrings": (lambda: os.path.exists("/proc/keys"), "a kernel with CONFIG_KEYS"),
    }
    for name, (works, needs) in features.items():
        good = works()
        # Without keyrings containers start as well; the rest is needed.
        bad = WARNING if name == "session keyrings" else PROBLEM
        yield Check(
            "kernel",
            name,
            OK if good else bad,
            "works" if good else "missing or forbidden",
            "" if good else f"use {needs}; a sandbox around ctr may forbid it",
        )
    layout, status, remedy = _cgroup_layout()
    yield Check("kernel", "cgroup layout", status, layout, remedy)


def _launcher() -> Iterator[Check]:
    from ctr.launcher import native

    built = native.available()
    yield Check(
        "launcher",
        "launcher",
        OK if built else WARNING,
        "compiled" if built else "the reference in Python: foreground runs only",
        "" if built else "apt install gcc libc6-dev, then install ctr-core again",
    )


def _state(settings: Settings) -> Iterator[Check]:
    for name, folder in (("root", settings.root), ("run root", settings.run_root)):
        existing = folder
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        good = os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)
        free = ""
        if good:
            status = os.statvfs(existing)
            free = f", {status.f_bavail * status.f_frsize >> 20} MiB free"
        yield Check(
            "state",
            name,
            OK if good else PROBLEM,
            folder + (free if good else ": can't be written"),
            "" if good else f"make it writable, or choose another with --{name.replace(' ', '-')}",
        )


def _plugins(host: PluginHost) -> Iterator[Check]:
    for plugin in host.plugins():
        yield Check(
            "plugins",
            plugin.name,
            WARNING if plugin.error else OK,
            plugin.error or f"{plugin.distribution} {plugin.version}",
            f"pip install --upgrade {plugin.distribution}, or uninstall it" if plugin.error else "",
        )


def _drivers(settings: Settings, host: PluginHost) -> Iterator[Check]:
    for kind in KINDS:
        default = ""
        if kind != "namespace":
            try:
                default = host.choose(kind, settings).info.name
            except CtrError as error:
                yield Check("drivers", kind, PROBLEM, error.message, error.hint)
        for name, offer in host.drivers(kind).items():
            needed = name == default or (kind == "namespace" and name in NEEDED_NAMESPACES)
            probe = host.probe(offer, settings)
            yield Check(
                "drivers",
                f"{kind} {name}",
                OK if probe.ok else PROBLEM if needed else WARNING,
                "default" if probe.ok and name == default else probe.reason,
                probe.hint or ("" if probe.ok else "choose another driver: `ctr drivers`"),
            )
    for name in sorted(NEEDED_NAMESPACES - host.drivers("namespace").keys()):
        yield Check(
            "drivers",
            f"namespace {name}",
            PROBLEM,
            "no plugin offers it",
            "pip install ctr-namespaces",
        )


def _missing_capabilities() -> list[str]:
    from ctr.security import capabilities

    own = capabilities.own_capabilities()
    wanted = capabilities.resolve((), (), privileged=False, own=(1 << 64) - 1)
    return list(capabilities.names_of(wanted & ~own))


def _has_openat2() -> bool:
    try:
        os.close(kernel.openat2(kernel.AT_FDCWD, "/", os.O_PATH))
    except OSError:
        return False
    return True


def _has_mount_api() -> bool:
    """Whether open_tree is there, which may refuse us, and mount_setattr."""
    try:
        os.close(kernel.open_tree(kernel.AT_FDCWD, "/", 0))
    except OSError:
        return False
    return _release() >= (5, 12)


def _has_clone3() -> bool:
    """Whether clone3 is there to refuse a thread that shares no signal handlers."""
    try:
        kernel.clone3(_CLONE_THREAD, 0)
    except OSError as error:
        return error.errno == errno.EINVAL
    raise AssertionError("clone3 made a thread without CLONE_SIGHAND")


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _has_seccomp() -> bool:
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
            return "errno" in file.read().split()
    except OSError:
        return False


def _cgroup_layout() -> tuple[str, str, str]:
    """The layout in words, its status and a remedy."""
    v1: list[str] = []
    v2 = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            kind = fields[fields.index("-") + 1]
            if kind == "cgroup":
                v1.append(os.path.basename(fields[4]))
            elif kind == "cgroup2":
                v2.append(fields[4])
    if v1:
        unified = f", v2 at {v2[0]}" if v2 else ""
        return f"v1: {', '.join(sorted(v1))}{unified}", OK, ""
    if v2:
        return f"v2 at {v2[0]}", OK, ""
    return "none mounted", PROBLEM, "mount -t cgroup2 none /sys/fs/cgroup"


def _release() -> tuple[int, ...]:
    numbers = os.uname().release.split("-")[0].split(".")
    return tuple(int(number) for number in numbers[:2] if number.isdigit())
