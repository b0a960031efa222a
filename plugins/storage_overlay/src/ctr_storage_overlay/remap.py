"""Give every file of a merged tree the ids that a user namespace's ids have outside."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctr.models import Mount, SnapshotOptions

_CAPABILITY = "security.capability"


def map_key(key: str, options: SnapshotOptions) -> str:
    """The hidden key of ``key`` with these id maps."""
    import hashlib

    text = repr((options.uid_map, options.gid_map))
    return f"{key}@{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def remap(mount: Mount, options: SnapshotOptions) -> None:
    """Change the owner of every file below ``mount``, which is made detached.

    The mount has metacopy=on, so no file's content is copied; and index=on here alone, so
    that hard links stay links: the snapshot is never mounted as an upper layer again.
    Raises InvalidError for an id that the maps lack.
    """
    from ctr.idmap import IdMapper
    from ctr.kernel import mount_detached
    from ctr.trees import walk_tree

    changed = tuple("index=on" if word == "index=off" else word for word in mount.options)
    mapper = IdMapper(options.uid_map, options.gid_map)
    #: Owners of files with several links, by inode: the second link shows the new owner.
    owners: dict[tuple[int, int], tuple[int, int]] = {}
    descriptor = mount_detached(mount._replace(options=changed))
    try:
        root = f"/proc/self/fd/{descriptor}/."
        status = os.stat(root)
        os.chown(root, *mapper.owner(status.st_uid, status.st_gid, "/"))
        os.chmod(root, stat.S_IMODE(status.st_mode))
        for folder, name, status in walk_tree(root):
            inode = (status.st_dev, status.st_ino)
            owner = owners.get(inode) or mapper.owner(status.st_uid, status.st_gid, name)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                owners[inode] = owner
            _change_owner(folder, name, status, owner)
    finally:
        os.close(descriptor)


def _change_owner(folder: int, name: str, status: os.stat_result, owner: tuple[int, int]) -> None:
    """chown(2) without what it takes away: file capabilities and the set-id bits."""
    capability = b""
    path = f"/proc/self/fd/{folder}/{name}"  # for getxattr, which has no dir_fd
    if stat.S_ISREG(status.st_mode):
        try:
            capability = os.getxattr(path, _CAPABILITY, follow_symlinks=False)
        except OSError:  # ENODATA
            capability = b""
    os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        os.chmod(path, stat.S_IMODE(status.st_mode))
    if capability:
        os.setxattr(path, _CAPABILITY, capability, follow_symlinks=False)
