"""The embedded image ``base``, made on first use from the machine's own tools.

busybox where the machine has it; else its shell and core utilities, with the libraries that
they need.  Two layers: a skeleton of a file system, and the tools.  On one machine the same
tools give the same bytes, and so the same image.
"""

from __future__ import annotations

import functools
import io
import os
import tarfile
from typing import TYPE_CHECKING, BinaryIO

from ctr.errors import InvalidError, NotFoundError, UnsupportedError
from ctr.images import build_layer, reference
from ctr.images.build_image import architecture, publish
from ctr.images.build_layer import member
from ctr.images.files import Lock
from ctr.images.manifest import OCI_LAYER, Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr.images.build_layer import Member
    from ctr.images.ingest import Ingest
    from ctr.images.store import ContentStore, Image

NAME = "docker.io/library/base:latest"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CONFIG = {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/sh"]}
_MAX_LAYER = 1 << 30  # bytes
_FOLDERS = {
    "dev": 0o755, "etc": 0o755, "home": 0o755, "mnt": 0o755, "opt": 0o755, "proc": 0o555,
    "root": 0o700, "run": 0o755, "srv": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755,
    "usr/bin": 0o755, "usr/lib": 0o755, "usr/local": 0o755, "usr/local/bin": 0o755,
    "usr/sbin": 0o755, "usr/share": 0o755, "var": 0o755, "var/cache": 0o755,
    "var/lib": 0o755, "var/log": 0o755, "var/spool": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
_LINKS = {"var/run": "../run"}
#: Folders that are links into /usr on machines with a merged /usr, and so in the image.
_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_FILES = {
    "etc/passwd": """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
""",
    "etc/group": """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
kmem:x:15:
wheel:x:10:
audio:x:29:
www-data:x:33:
video:x:44:
users:x:100:
nogroup:x:65534:
""",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/profile": f"export PATH={PATH}\n",
    "etc/shells": "/bin/sh\n",
}

_TOOLS = """\
[ arch awk base32 base64 basename cat chgrp chmod chown chroot cksum cmp comm cp cut date dd df
diff dir dirname dmesg du echo env expand expr factor false find fmt fold free getent grep gzip
head hostid hostname id install ip join kill less link ln logname ls md5sum mkdir mkfifo mknod
mktemp more mount mountpoint mv nc nice nl nohup nproc nsenter numfmt od paste pathchk pgrep ping
pkill pr printenv printf ps pwd readlink realpath rm rmdir sed seq setpriv setsid sh sha1sum
sha256sum sha512sum shred shuf sleep sort split ss stat stty sum sync tac tail tar taskset tee
test timeout top touch tr true truncate tsort tty umount uname unexpand uniq unlink unshare
uptime users vi watch wc who whoami xargs yes
"""
_SEARCH = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox")
_TERMINALS = ("d/dumb", "l/linux", "v/vt100", "x/xterm", "x/xterm-256color")
#: Loaded by the C library when it runs, so that no program names them.
_NSS = ("libnss_files.so.2", "libnss_dns.so.2")


def is_base(text: str) -> bool:
    """Whether a reference names the embedded image."""
    try:
        return str(reference.parse(text)) == NAME
    except InvalidError:
        return False


def ensure_base(store: ContentStore) -> Image:
    """Return the image named ``base``, made now if there is none.

    Of many processes at once one makes it.  Raises UnsupportedError when the machine has no
    shell to put into it, StateError when it can't be stored.
    """
    try:
        return store.resolve(NAME)
    except NotFoundError:
        pass
    store.make_folders()
    with Lock(os.path.join(store.root, "base.lock")):
        try:
            return store.resolve(NAME)
        except NotFoundError:
            make_base(store)
            return store.resolve(NAME)


def to_be_made() -> Image:
    """What is known of the image before it is made: all but its digests."""
    from ctr.images.store import Image

    unknown = "<made on first use>"
    return Image(NAME, unknown, unknown, {"config": _CONFIG}, (), (unknown,))


def make_base(store: ContentStore, *, busybox: str | None = None) -> None:
    """Make the image and name it ``base``; ``busybox``: the program's path, "" for none."""
    if busybox is None:
        busybox = next(filter(os.path.isfile, _BUSYBOX), "")
    tools = _busybox_tree(busybox) if busybox else _host_tree()
    with store.ingest() as ingest:
        layers = [
            ingest.add_made(
                functools.partial(build_layer.write_layer, sorted(members, key=_name)),
                limit=_MAX_LAYER,
            )
            for members in (_skeleton(), _members(tools))
        ]
        _publish(ingest, layers, busybox)


def _publish(ingest: Ingest, layers: list[tuple[str, int]], busybox: str) -> None:
    epoch = "1970-01-01T00:00:00Z"
    source = "busybox" if busybox else "the machine's tools"
    config = {
        "architecture": architecture(),
        "os": "linux",
        "created": epoch,
        "config": _CONFIG,
        "rootfs": {"type": "layers", "diff_ids": [digest for digest, _ in layers]},
        "history": [
            {"created": epoch, "created_by": "ctr: skeleton"},
            {"created": epoch, "created_by": f"ctr: {source}"},
        ],
    }
    publish(ingest, config, [Descriptor(OCI_LAYER, *layer) for layer in layers], [NAME])


def _name(item: Member) -> str:
    return item[0].name


def _skeleton() -> Iterator[Member]:
    yield member("./", tarfile.DIRTYPE, 0o755), None
    for name, mode in _FOLDERS.items():
        yield member(name, tarfile.DIRTYPE, mode), None
    for name in _MERGED:
        # As on the machine, whose programs name their interpreter by such a path.
        if os.path.islink(f"/{name}"):
            yield member(name, tarfile.SYMTYPE, 0o777, target=f"usr/{name}"), None
            if f"usr/{name}" not in _FOLDERS:
                yield member(f"usr/{name}", tarfile.DIRTYPE, 0o755), None
        elif name in ("bin", "lib", "sbin") or os.path.isdir(f"/{name}"):
            yield member(name, tarfile.DIRTYPE, 0o755), None
    for name, target in _LINKS.items():
        yield member(name, tarfile.SYMTYPE, 0o777, target=target), None
    for name, text in _FILES.items():
        data = text.encode()
        yield (
            member(name, tarfile.REGTYPE, 0o644, size=len(data)),
            functools.partial(io.BytesIO, data),
        )


def _busybox_tree(path: str) -> dict[str, str]:
    """The tree of busybox and its applets, or the machine's where it can't list them."""
    import subprocess

    listing = subprocess.run(
        [path, "--list-full"], env={}, capture_output=True, text=True, check=False
    )
    applets = [_merged(f"/{name}") for name in listing.stdout.split() if "/" in name]
    tree: dict[str, str] = {}
    _place(tree, path)
    _place_libraries(tree, [path])
    for applet in applets:
        tree.setdefault(applet, f"-> {os.path.realpath(path)}")
    return tree if "usr/bin/sh" in tree or "bin/sh" in tree else _host_tree()


def _host_tree() -> dict[str, str]:
    """The tree of those of ``_TOOLS`` that the machine has and that are programs, no scripts."""
    tree: dict[str, str] = {}
    found = [path for tool in _TOOLS.split() if (path := _search(tool)) and _is_elf(path)]
    if not any(path.endswith("/sh") for path in found):
        raise UnsupportedError(
            "cannot make the image base: this machine has no /bin/sh that is a program",
            hint="install busybox, or bring an image in with `ctr image load`",
        )
    for path in found:
        _place(tree, path)
    _place_libraries(tree, found)
    for name in _TERMINALS:
        for folder in ("/lib/terminfo", "/usr/share/terminfo"):
            if os.path.isfile(f"{folder}/{name}"):
                _place(tree, f"{folder}/{name}")
    return tree


def _search(tool: str) -> str:
    for folder in _SEARCH:
        path = f"{folder}/{tool}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def _is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def _place_libraries(tree: dict[str, str], programs: list[str]) -> None:
    """Add what the dynamic linker would load, as it says itself; these programs are the host's."""
    import subprocess

    ldd = _search("ldd")
    if not ldd:
        return  # a static busybox needs none
    environment = {"PATH": PATH, "LC_ALL": "C"}
    listing = subprocess.run(
        [ldd, *programs], env=environment, capture_output=True, text=True, check=False
    )
    for line in listing.stdout.splitlines():
        # "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" or "\t/lib64/ld-linux… (0x…)"
        words = [word for word in line.split() if word.startswith("/")]
        if line.startswith("\t") and words and os.path.isfile(words[-1]):
            _place(tree, words[-1])
            if os.path.basename(words[-1]).startswith("libc.so"):
                for name in _NSS:
                    library = f"{os.path.dirname(words[-1])}/{name}"
                    if os.path.isfile(library):
                        _place(tree, library)


def _place(tree: dict[str, str], path: str) -> None:
    """Add a file of the machine under its real name, and its other names as links to that."""
    real = os.path.realpath(path)
    tree[real[1:]] = real
    tree.setdefault(_merged(path), f"-> {real}")


def _merged(path: str) -> str:
    """The name in the image of the machine's ``path``, none of whose folders is a link."""
    return f"{os.path.realpath(os.path.dirname(path))}/{os.path.basename(path)}"[1:]


def _members(tree: dict[str, str]) -> Iterator[Member]:
    """The files and links of a tree, and the folders that the skeleton lacks."""
    folders: set[str] = set()
    for name, content in tree.items():
        folder = os.path.dirname(name)
        while folder and folder not in _FOLDERS and folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
        if content.startswith("-> "):
            yield member(name, tarfile.SYMTYPE, 0o777, target=content[3:]), None
        else:
            mode = 0o755 if os.access(content, os.X_OK) else 0o644
            size = os.stat(content).st_size
            info = member(name, tarfile.REGTYPE, mode, size=size)
            yield info, functools.partial(_open, content)
    for name in folders:
        yield member(name, tarfile.DIRTYPE, 0o755), None


def _open(path: str) -> BinaryIO:
    return open(path, "rb")
