"""Programs and root file systems for the tests of both launchers."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from ctr import kernel as linux
from ctr import operations as ops
from ctr.program import Phase, Verify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.program import Operation

#: The namespaces of an ordinary container.
NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
)
ROOT, NULL = 0, 1  # slots
FREE = 10  # the first slot for a test's own

APPLETS = (
    *("cat", "chmod", "chown", "dd", "echo", "env", "false", "find", "grep", "head", "hostname"),
    *("id", "ifconfig", "ls", "mkdir", "mount", "pwd", "readlink", "rm", "sed", "sh", "sleep"),
    *("sort", "stat", "touch", "true", "uname", "wc"),
)


def make_rootfs(path: str) -> str:
    """A root file system of busybox and nothing else; return its path."""
    busybox = shutil.which("busybox")
    assert busybox, "the tests need a static busybox (apt install busybox-static)"
    for name in ("bin", "dev", "etc", "mnt", "proc", "srv", "sys", "tmp"):
        os.makedirs(os.path.join(path, name))
    shutil.copy(busybox, f"{path}/bin/busybox")
    for name in APPLETS:
        os.symlink("busybox", f"{path}/bin/{name}")
    with open(f"{path}/etc/secret", "w", encoding="ascii") as file:
        file.write("secret\n")
    with open(f"{path}/srv/file", "w", encoding="ascii") as file:
        file.write("served\n")
    return path


def program(
    root: str | Iterable[Operation],
    command: tuple[str, ...],
    *extra: Operation,
    flags: int = NAMESPACES,
    environment: tuple[str, ...] = ("PATH=/bin",),
) -> list[Operation]:
    """A container with ``extra`` operations, each at the end of its phase.

    ``root`` is a folder, or the operations that fill slot ROOT.
    """
    # A copy of a shared mount is shared, and pivot_root refuses that.
    private = ops.MountAttr(ROOT, 0, propagation=linux.MS_PRIVATE)
    new_root = [ops.OpenTree(ROOT, root), private] if isinstance(root, str) else list(root)
    base = [
        *new_root,
        ops.Clone(flags),
        ops.Propagation(linux.MS_REC | linux.MS_PRIVATE),
        ops.AttachRoot(ROOT),
        ops.OpenPath(NULL, "/dev/null", os.O_PATH, Verify.CHAR_DEVICE, 1, 3).at(Phase.SETUP),
        ops.MountAt("proc", "/proc"),
        ops.PivotRoot(),
        ops.Stdio(0, 0),
        ops.Chdir("/"),
    ]
    ordered = sorted([*base, *extra], key=lambda operation: operation.phase)
    last = max(index for index, operation in enumerate(ordered) if operation.phase <= Phase.CLONED)
    ordered.insert(last + 1, ops.Sync(1))
    end = [ops.CloseDescriptors(), ops.Exec(command, environment, "/bin")]
    return [*ordered, *end]
