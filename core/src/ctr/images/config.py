"""The execution part of an image's configuration, checked (OCI image-spec config.md).

Everything in it comes from the image's maker.  Paths are made absolute and lose their
``..`` here, and are resolved inside the container's root by whoever uses them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ITEMS = 4096
MAX_TEXT = 128 << 10  # bytes of one string: execve(2) takes no longer argument
MAX_PATH = 4095  # bytes, from linux/limits.h

_PORT = "[0-9]{1,5}(?:-[0-9]{1,5})?(?:/(?:tcp|udp|sctp))?"
_SIGNAL = "[A-Z0-9+-]{1,20}"


class ImageConfig(NamedTuple):
    """What an image says about its containers.

    ``env`` holds ``NAME=VALUE``; ``workdir`` is absolute, or empty where the image has none;
    ``volumes`` are absolute paths; ``exposed`` are ``80/tcp``; ``user`` and ``stop_signal``
    are as the image spells them, empty for none.
    """

    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    workdir: str
    user: str
    volumes: tuple[str, ...]
    labels: dict[str, str]
    stop_signal: str
    exposed: tuple[str, ...]


def parse(config: dict[str, Any]) -> ImageConfig:
    """Check the configuration of ``Image.config``.  Raises ImageError.

    An ``Env`` entry without ``=`` is dropped, as docker does.
    """
    raw = config.get("config")
    section = _typed(raw, dict, "config") if raw is not None else {}
    workdir = _string(section, "WorkingDir")
    signal = _string(section, "StopSignal").upper()
    if signal and not re.fullmatch(_SIGNAL, signal):
        raise _wrong("StopSignal", "is not a signal")
    exposed = _keys(section, "ExposedPorts")
    if not all(re.fullmatch(_PORT, port) for port in exposed):
        raise _wrong("ExposedPorts", "holds something that is no port")
    volumes = tuple(dict.fromkeys(_path(path, "Volumes") for path in _keys(section, "Volumes")))
    if "/" in volumes:
        raise _wrong("Volumes", "names the root folder")
    return ImageConfig(
        env=tuple(item for item in _strings(section, "Env") if item.find("=") > 0),
        entrypoint=_strings(section, "Entrypoint"),
        cmd=_strings(section, "Cmd"),
        workdir=_path(workdir, "WorkingDir") if workdir else "",
        user=_string(section, "User"),
        volumes=volumes,
        labels=_labels(section),
        stop_signal=signal,
        exposed=exposed,
    )


def _typed(value: object, kind: Callable[..., Any], what: str) -> Any:
    if type(value) is not kind:
        raise _wrong(what, f"is not a {kind.__name__}")
    if isinstance(value, dict | list) and len(value) > MAX_ITEMS:
        raise _wrong(what, f"has more than {MAX_ITEMS} entries")
    return value


def _text(value: object, what: str) -> str:
    text: str = _typed(value, str, what)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _wrong(what, "holds half a surrogate pair") from None
    if size > MAX_TEXT or "\0" in text:
        raise _wrong(what, f"holds a NUL or more than {MAX_TEXT} bytes")
    return text


def _string(section: dict[str, Any], key: str) -> str:
    value = section.get(key)
    return "" if value is None else _text(value, key)


def _strings(section: dict[str, Any], key: str) -> tuple[str, ...]:
    value = section.get(key)
    if value is None:
        return ()
    return tuple(_text(item, key) for item in _typed(value, list, key))


def _keys(section: dict[str, Any], key: str) -> tuple[str, ...]:
    """The keys of a JSON object that stands for a set."""
    value = section.get(key)
    if value is None:
        return ()
    return tuple(_text(item, key) for item in _typed(value, dict, key))


def _labels(section: dict[str, Any]) -> dict[str, str]:
    value = section.get("Labels")
    if value is None:
        return {}
    labels = _typed(value, dict, "Labels")
    return {_text(name, "Labels"): _text(text, "Labels") for name, text in labels.items()}


def _path(path: str, what: str) -> str:
    """``path`` made absolute, without ``.`` and ``..``, which stop at the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    absolute = "/" + "/".join(parts)
    if len(absolute.encode()) > MAX_PATH:
        raise _wrong(what, f"holds a path of more than {MAX_PATH} bytes")
    return absolute


def _wrong(what: str, why: str) -> ImageError:
    return ImageError(f"cannot use the image's configuration: {what} {why}")
