"""``-v``, ``--mount`` and ``--tmpfs`` as docker has them."""

from __future__ import annotations

import os
from typing import NamedTuple

from ctr.errors import InvalidError
from ctr.parse import check_name, size

_PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")


class MountSpec(NamedTuple):
    """One mount that the user or the image asked for.

    ``kind`` is bind, volume or tmpfs.  ``source`` is an absolute path of the host (bind),
    a volume's name or empty for an anonymous one (volume), or empty.  ``target`` is an
    absolute path in the container.  ``anonymous``: a volume that nobody named.  ``create``:
    a missing source folder is made (``-v``, not ``--mount``).  ``copy``: an empty volume gets
    the image's content.  ``size`` (bytes) and ``mode`` are tmpfs's; 0 and -1 mean its
    defaults.
    """

    kind: str
    source: str
    target: str
    readonly: bool = False
    propagation: str = "rprivate"
    recursive: bool = True
    create: bool = False
    copy: bool = True
    size: int = 0
    mode: int = -1
    exec: bool = False
    anonymous: bool = False


def parse_volume(value: str) -> MountSpec:
    """``[SOURCE:]TARGET[:OPTIONS]`` of ``-v``."""
    parts = value.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidError(
            f"cannot use --volume {value!r}: not [SOURCE:]TARGET[:OPTIONS]",
            hint="write -v /host/path:/path, -v name:/path or -v /path, with :ro after it",
        )
    option = f"--volume {value!r}"
    if len(parts) == 1:
        return MountSpec("volume", "", _target(parts[0], option))
    source, target = parts[0], _target(parts[1], option)
    named = not source.startswith(("/", ".", "~"))
    if named:
        check_name(source, "--volume name")
        spec = MountSpec("volume", source, target)
    else:
        spec = MountSpec("bind", os.path.abspath(os.path.expanduser(source)), target, create=True)
    for word in parts[2].split(",") if len(parts) == 3 else ():
        spec = _volume_option(spec, word, option)
    return spec


def _volume_option(spec: MountSpec, word: str, option: str) -> MountSpec:
    if word in ("ro", "rw"):
        return spec._replace(readonly=word == "ro")
    if word in _PROPAGATIONS and spec.kind == "bind":
        return spec._replace(propagation=word)
    if word == "nocopy" and spec.kind == "volume":
        return spec._replace(copy=False)
    if word in ("z", "Z"):
        raise InvalidError(f"cannot use {option}: SELinux labels ({word}) are not supported")
    raise InvalidError(f"cannot use {option}: unknown option {word!r}")


def parse_mount(value: str) -> MountSpec:
    """``type=bind|volume|tmpfs,source=…,target=…,…`` of ``--mount``."""
    option = f"--mount {value!r}"
    fields: dict[str, str] = {}
    for part in value.split(","):
        key, equals, text = part.partition("=")
        fields[_ALIASES.get(key.strip().lower(), key.strip().lower())] = text if equals else "true"
    kind = fields.pop("type", "volume")
    if kind not in _MOUNT_FIELDS:
        raise InvalidError(f"cannot use {option}: type {kind!r} is none of bind, volume, tmpfs")
    unknown = sorted(fields.keys() - _MOUNT_FIELDS[kind])
    if unknown:
        raise InvalidError(f"cannot use {option}: {unknown[0]!r} is no field of type {kind}")
    if "target" not in fields:
        raise InvalidError(f"cannot use {option}: it has no target")
    spec = MountSpec(kind, fields.get("source", ""), _target(fields["target"], option))
    spec = spec._replace(readonly=_flag(fields.get("readonly", "false"), option))
    if kind == "bind":
        if not spec.source.startswith("/"):
            raise InvalidError(f"cannot use {option}: the source must be an absolute path")
        propagation = fields.get("bind-propagation", "rprivate")
        if propagation not in _PROPAGATIONS:
            raise InvalidError(f"cannot use {option}: unknown propagation {propagation!r}")
        recursive = fields.get("bind-recursive", "enabled")
        if recursive not in ("enabled", "disabled"):
            raise InvalidError(f"cannot use {option}: bind-recursive is enabled or disabled")
        return spec._replace(propagation=propagation, recursive=recursive == "enabled")
    if kind == "volume":
        if spec.source:
            check_name(spec.source, "--mount source")
        return spec._replace(copy=not _flag(fields.get("volume-nocopy", "false"), option))
    if "tmpfs-size" in fields:
        spec = spec._replace(size=size(fields["tmpfs-size"], "--mount tmpfs-size"))
    if "tmpfs-mode" in fields:
        spec = spec._replace(mode=_octal(fields["tmpfs-mode"], option))
    return spec


_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_MOUNT_FIELDS = {
    "bind": {"source", "target", "readonly", "bind-propagation", "bind-recursive"},
    "volume": {"source", "target", "readonly", "volume-nocopy"},
    "tmpfs": {"target", "readonly", "tmpfs-size", "tmpfs-mode"},
}


def parse_tmpfs(value: str) -> MountSpec:
    """``TARGET[:OPTIONS]`` of ``--tmpfs``."""
    option = f"--tmpfs {value!r}"
    target, _, words = value.partition(":")
    spec = MountSpec("tmpfs", "", _target(target, option))
    for word in words.split(",") if words else ():
        key, _, text = word.partition("=")
        if key == "size":
            spec = spec._replace(size=size(text, "--tmpfs size"))
        elif key == "mode":
            spec = spec._replace(mode=_octal(text, option))
        elif word in ("ro", "rw"):
            spec = spec._replace(readonly=word == "ro")
        elif word in ("exec", "noexec"):
            spec = spec._replace(exec=word == "exec")
        elif word not in ("nosuid", "nodev"):  # always set
            raise InvalidError(f"cannot use {option}: unknown option {word!r}")
    return spec


def merge(image_volumes: tuple[str, ...], asked: list[MountSpec]) -> list[MountSpec]:
    """The image's volumes and the user's mounts, one a target, parents before children.

    A user's mount takes the place of an image's volume; anonymous volumes get their names.
    Raises InvalidError when two of the user's have one target.
    """
    merged: dict[str, MountSpec] = {}
    for spec in asked:
        if spec.target in merged:
            raise InvalidError(f"cannot mount twice on {spec.target}: duplicate mount point")
        merged[spec.target] = spec
    for path in image_volumes:
        target = _target(path, f"the image's volume {path!r}")
        merged.setdefault(target, MountSpec("volume", "", target))
    named = [
        spec._replace(source=os.urandom(32).hex(), anonymous=True)
        if spec.kind == "volume" and not spec.source
        else spec
        for spec in merged.values()
    ]
    return sorted(named, key=lambda spec: (spec.target.count("/"), spec.target))


def _target(path: str, option: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise InvalidError(f"cannot use {option}: the target must be an absolute path")
    target = "/" + os.path.normpath(path).lstrip("/")  # normpath keeps two leading slashes
    if target == "/":
        raise InvalidError(f"cannot use {option}: the target can't be /")
    if target == "/proc" or target.startswith("/proc/"):
        # A mount there defeats what is verified by being procfs (CVE-2019-16884, 2019-19921).
        raise InvalidError(f"cannot use {option}: mounts on /proc are refused")
    return target


def _flag(text: str, option: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise InvalidError(f"cannot use {option}: {text!r} is neither true nor false")


def _octal(text: str, option: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise InvalidError(f"cannot use {option}: {text!r} is no octal mode")
    return mode
