"""A network and mount namespace for a test process, so that tests never write the host's."""

from __future__ import annotations

import os
import tempfile

from ctr import kernel

CGROUPS = "/sys/fs/cgroup"

# from linux/mount.h
MS_MOVE = 0x2000


def isolate() -> None:
    """Move the calling thread into a network and mount namespace of its own.

    ``lo`` is up there; ``/sys`` shows the new network namespace, with the machine's control
    groups where they were.  Mounts made from now on are private.  There is no way back.
    Raises OSError (EPERM: not root).
    """
    kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.link_up("lo")
    # A sysfs belongs to the network namespace that it was mounted in.
    folder = tempfile.mkdtemp(prefix="ctr-sys-")
    kernel.mount("sysfs", folder, "sysfs", 0)
    if os.path.ismount(CGROUPS):
        kernel.mount(
            CGROUPS, folder + CGROUPS.removeprefix("/sys"), "", kernel.MS_BIND | kernel.MS_REC
        )
    kernel.mount(folder, "/sys", "", MS_MOVE)
    os.rmdir(folder)
