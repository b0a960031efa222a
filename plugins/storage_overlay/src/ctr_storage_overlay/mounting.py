"""The overlay mount of a snapshot, as data.  Pure.

The kernel takes layers in two ways.  From 6.8 on one by one (``lowerdir+``), each option a
string of at most 255 bytes: the container's root is then made by the new mount API, in no
namespace but by descriptor.  Before, all layers are one option, which fsconfig(2) would cut
at 255 bytes and mount(2) at a page; so mount(2) it is, from within the driver's folder, with
paths of nine bytes.

Options, each said aloud since their defaults are build options of the kernel
(Documentation/filesystems/overlayfs.rst):

``index=off``
    The index keeps hard links together when one is written to, but ties upper and lower
    folders by file handles: a restored backup would no longer mount (ESTALE).
``metacopy=off``, ``redirect_dir=off``
    What they write into a layer only means something above exactly the same layers, read
    with the same options.  Without them a layer's folder holds plain files, whiteouts and
    opaque folders, which any tool can read; renaming a folder of the image gives EXDEV,
    and ``mv`` copies.  A snapshot whose layers were made with them needs them for ever.
``volatile``
    On request: nothing is synced at unmount (160 microseconds, or seconds on a busy disk).
``userxattr`` is never given: it is for mounts inside a user namespace, and the driver's are
made outside.
"""

from __future__ import annotations

from ctr.errors import UnsupportedError
from ctr.models import Mount

# The first release with lowerdir+, says overlayfs.rst.
APPENDING = (6, 8)

MOUNT_ATTR_RDONLY = 1  # from linux/mount.h

_MAX_LAYERS = 500  # OVL_MAX_STACK, from fs/overlayfs/params.h
_MAX_STRING = 255  # strndup_user in fsconfig(2)
_MAX_DATA = 4095  # a page, of which mount(2) needs one byte

#: An empty folder below the driver's root: overlayfs wants something to lie over.
EMPTY = "empty"


def appends_layers(release: str) -> bool:
    """Whether a kernel of this ``uname -r`` knows ``lowerdir+``."""
    major, _, rest = release.partition(".")
    minor = ""
    for character in rest:
        if not character.isdigit():
            break
        minor += character
    return major.isdigit() and (int(major), int(minor or 0)) >= APPENDING


def overlay_mount(
    root: str,
    lowers: tuple[str, ...],
    upper: str | None,
    *,
    appending: bool,
    metacopy: bool = False,
    volatile: bool = False,
) -> Mount:
    """The mount of ``lowers`` (snapshot folders below ``root``, newest first) and ``upper``.

    Raises UnsupportedError for more layers than the kernel can stack.
    """
    # The empty folder is also below the first layer: only an overlay mount refuses a layer's
    # forged whiteouts (mknod 0:0) and trusted.overlay attributes.
    paths = [f"{folder}/fs" for folder in lowers] or [EMPTY]
    if upper is None and len(paths) == 1:
        paths.append(EMPTY)  # without an upper folder the kernel asks for two
    if len(paths) > _MAX_LAYERS:
        raise UnsupportedError(
            f"cannot stack {len(paths)} layers: overlayfs takes {_MAX_LAYERS}",
            hint="squash the image, or use another storage driver",
        )
    words = ["on" if metacopy else "off"] * 2
    options = [
        "index=off",
        *(f"{name}={word}" for name, word in zip(("metacopy", "redirect_dir"), words, strict=True)),
    ]
    if volatile:
        options.append("volatile")
    attributes = MOUNT_ATTR_RDONLY if upper is None else 0
    if appending and _plain(root):
        layers = [f"lowerdir+={root}/{path}" for path in paths]
        if upper is not None:
            layers += [f"upperdir={root}/{upper}/fs", f"workdir={root}/{upper}/work"]
        return Mount("overlay", "overlay", (*layers, *options), attributes)
    layers = ["lowerdir=" + ":".join(paths)]
    if upper is not None:
        layers += [f"upperdir={upper}/fs", f"workdir={upper}/work"]
    if len(",".join(layers + options)) > _MAX_DATA:
        raise UnsupportedError(
            f"cannot stack {len(paths)} layers: their names fill a page, all that mount(2) takes",
            hint="use Linux 6.8 or newer, squash the image, or use another storage driver",
        )
    return Mount("overlay", "overlay", (*layers, *options), attributes, staging=root)


def _plain(root: str) -> bool:
    """Whether paths below ``root`` can be given whole: short, and without overlay's escapes."""
    longest = len("/ffffff/work")
    return len(root.encode()) + longest <= _MAX_STRING and not set(root) & set("\\:,")
