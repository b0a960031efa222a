"""Compiles the launcher: one static executable without dependencies.

Plain functions of the standard library alone; the packaging hook loads this file when ctr
is not installed yet.
"""

from __future__ import annotations

import os
import shutil
import subprocess

WARNINGS = ("-Wall", "-Wextra", "-Werror")
SMALL = ("-static", "-Os", "-s", "-ffunction-sections", "-Wl,--gc-sections")
#: Without the C library (freestanding.c): every container keeps a copy in memory, and so
#: that is 25 kB and not 700.
FREESTANDING = (
    "-nostdlib",
    "-fno-builtin",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-U_FORTIFY_SOURCE",
    "-Wl,-z,noseparate-code",
    "-Wl,--build-id=none",
)
MACHINES = ("x86_64", "aarch64")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def sources(*, freestanding: bool) -> list[str]:
    """The launcher's C files."""
    here = os.path.dirname(os.path.abspath(__file__))
    return [
        os.path.join(here, name)
        for name in sorted(os.listdir(here))
        if name.endswith(".c") and (freestanding or not name.startswith("freestanding"))
    ]


def compiler() -> str:
    """The C compiler: ``$CC``, else cc, gcc or clang.  Raises FileNotFoundError."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise FileNotFoundError("no C compiler: none of $CC, cc, gcc and clang is there")


def build(output: str, *, cc: str | None = None, sanitize: bool = False) -> None:
    """Compile the launcher to ``output``.

    ``sanitize`` builds it for tests, with the address and undefined-behaviour sanitizers and
    not static.  Raises FileNotFoundError without a compiler, RuntimeError with the
    compiler's messages when it fails (usually: libc6-dev is missing).
    """
    cc = cc or compiler()
    freestanding = not sanitize and _run([cc, "-dumpmachine"]).partition("-")[0] in MACHINES
    flags = SANITIZERS if sanitize else SMALL + FREESTANDING if freestanding else SMALL
    files = sources(freestanding=freestanding)
    _run([cc, "-std=gnu11", "-D_GNU_SOURCE", *WARNINGS, *flags, "-o", output, *files])


def _run(command: list[str]) -> str:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if result.returncode:
        message = result.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"cannot compile the launcher: {message}")
    return result.stdout.decode()
