"""Images that attack, made in memory, and what must not change on the host."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from typing import Any

BUSYBOX = shutil.which("busybox") or "/bin/busybox"

APPLETS = (
    "sh cat env grep id kill ln ls mkdir mknod readlink rm rmdir sleep stat touch true yes".split()
)

#: A member of a tar: its name, then what ``member`` takes.
Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes | str = b"", **fields: Any) -> Member:
    """A file, or what ``type`` says; ``fields`` are those of TarInfo."""
    raw = data.encode() if isinstance(data, str) else data
    info = tarfile.TarInfo(name)
    info.size = len(raw)
    for field, value in {"mode": 0o644, **fields}.items():
        setattr(info, field, value)
    return info, raw


def link(name: str, target: str) -> Member:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def folder(name: str, mode: int = 0o755) -> Member:
    return member(name, type=tarfile.DIRTYPE, mode=mode)


def node(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> Member:
    return member(name, type=kind, devmajor=major, devminor=minor, mode=0o666)


def executable(name: str, path: str, mode: int = 0o755) -> Member:
    with open(path, "rb") as file:
        return member(name, file.read(), mode=mode)


def tar(*members: Member) -> bytes:
    """A tar, exactly as asked for: tarfile corrects nothing."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tools(probe: str) -> list[Member]:
    """A small system: busybox and its applets, and the attacker's program, once set-user-ID."""
    return [
        folder("bin"),
        folder("tmp", 0o1777),
        executable("bin/busybox", BUSYBOX),
        executable("bin/probe", probe),
        executable("bin/probe-suid", probe, mode=0o4755),
        *(link(f"bin/{name}", "busybox") for name in APPLETS),
    ]


def archive(config: dict[str, Any], *layers: bytes, name: str) -> bytes:
    """A docker archive (``docker save``) of one image."""
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    document = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, ""),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    raw = json.dumps(document).encode()
    files = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": files}]
    return tar(
        member("config.json", raw),
        *(member(file, layer) for file, layer in zip(files, layers, strict=True)),
        member("manifest.json", json.dumps(manifest)),
    )


def compile_probe(folder: str) -> str:
    """Compile probe.c to a static program in ``folder``; return its path."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.c")
    output = os.path.join(folder, "probe")
    flags = ["-D_GNU_SOURCE", "-static", "-O1", "-Wall", "-Werror"]
    subprocess.run(["cc", *flags, "-o", output, source], check=True)
    return output


def listing(path: str) -> list[tuple[Any, ...]]:
    """All that can be changed below ``path``, but for access times."""
    found = []
    for base, folders, files in os.walk(path):
        for name in sorted([*folders, *files, "."]):
            file = os.path.join(base, name)
            status = os.lstat(file)
            text = ""
            if os.path.islink(file):
                text = os.readlink(file)
            elif os.path.isfile(file):
                with open(file, encoding="latin-1") as stream:
                    text = stream.read()
            changes = status.st_mode, status.st_uid, status.st_nlink, status.st_ctime_ns
            found.append((file, *changes, text))
    return sorted(found)
