"""Makes the project of a new storage driver from the template that ships with ctr.

The template is a project that works: the driver ``example``.  A new one is the same with
another name.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile

from ctr.errors import ConflictError, InvalidError, StateError

TEMPLATE = os.path.join(os.path.dirname(__file__), "template")

_NAME = re.compile(r"[a-z][a-z0-9]{0,30}")


def generate(name: str, parent: str) -> str:
    """Make ``parent``/ctr-storage-NAME and return its path.

    Raises InvalidError for a bad name, ConflictError when the folder exists, StateError
    when it can't be written.
    """
    if not _NAME.fullmatch(name) or name == "example":
        raise InvalidError(
            f"cannot name a driver {name!r}: it must be [a-z][a-z0-9]*, at most 31 characters",
            hint="the name is used as in `ctr --storage NAME`",
        )
    target = os.path.join(parent, f"ctr-storage-{name}")
    if os.path.lexists(target):
        raise ConflictError(f"cannot make {target}: it exists")
    try:
        with tempfile.TemporaryDirectory(prefix=".ctr-plugin-", dir=parent) as temporary:
            project = os.path.join(temporary, "project")
            _copy(project, name)
            os.rename(project, target)
    except OSError as error:
        raise StateError(f"cannot make {target}: {error.strerror or error}") from error
    return target


def _copy(project: str, name: str) -> None:
    for folder, folders, files in os.walk(TEMPLATE):
        folders[:] = [entry for entry in folders if not entry.startswith((".", "__"))]
        relative = os.path.relpath(folder, TEMPLATE)
        made = os.path.normpath(os.path.join(project, _renamed(relative, name)))
        os.makedirs(made)
        for file in files:
            with open(os.path.join(folder, file), encoding="utf-8") as source:
                text = source.read()
            with open(os.path.join(made, _renamed(file, name)), "w", encoding="utf-8") as target:
                target.write(_renamed(text, name))
            shutil.copymode(os.path.join(folder, file), target.name)


def _renamed(text: str, name: str) -> str:
    return text.replace("example", name).replace("Example", name.capitalize())
