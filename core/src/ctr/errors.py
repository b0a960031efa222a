"""Every error that ctr raises on purpose, as one tree.

The command line prints ``ctr: MESSAGE`` and, where there is one, ``hint: HINT``.
A message reads *cannot VERB OBJECT: CAUSE*.  ``code`` is a stable word for API
bodies and ``--format json``; ``http`` is the status the Engine API answers with.
``ctr run`` exits 125 for each of them unless the error says otherwise; every
other command exits 1.

::

    CtrError                 code              exit  http
    ├── InvalidError         invalid           1     400   the request is wrong
    ├── NotFoundError        not_found         1     404   no such image, container, driver, …
    ├── ConflictError        conflict          1     409   name taken, in use, wrong state
    ├── PrivilegeError       privilege         1     403   the caller may not do this
    ├── UnsupportedError     unsupported       1     501   this kernel or machine can't
    ├── DriverError          driver            1     500   a plugin failed or is broken
    ├── StateError           state             1     500   our own files are damaged or unreadable
    ├── ImageError           image             1     400   an image is malformed
    │   └── DigestError      digest            1     400   content does not match its digest
    └── LaunchError          launch            125   500   an operation of the launch failed
        ├── NotExecutable    not_executable    126   400   the command can't be executed
        └── CommandNotFound  command_not_found 127   400   the command does not exist
"""

from __future__ import annotations

__all__ = [
    "CommandNotFoundError",
    "ConflictError",
    "CtrError",
    "DigestError",
    "DriverError",
    "ImageError",
    "InvalidError",
    "LaunchError",
    "NotExecutableError",
    "NotFoundError",
    "PrivilegeError",
    "StateError",
    "UnsupportedError",
]


class CtrError(Exception):
    """Base of all; ``message`` is one line, ``hint`` (one line or empty) says what to do."""

    code = "error"
    exit_status = 1
    http = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidError(CtrError):
    """The request itself is wrong: a bad flag value, a bad name, a bad file."""

    code = "invalid"
    http = 400


class NotFoundError(CtrError):
    """What was named does not exist; the message lists what does, where that is short."""

    code = "not_found"
    http = 404


class ConflictError(CtrError):
    """The name is taken, the object is in use, or its state forbids the transition."""

    code = "conflict"
    http = 409


class PrivilegeError(CtrError):
    """The caller lacks a right (usually: is not root)."""

    code = "privilege"
    http = 403


class UnsupportedError(CtrError):
    """This kernel or machine lacks what was asked for."""

    code = "unsupported"
    http = 501


class DriverError(CtrError):
    """A plugin could not be loaded or failed; the message names it and its distribution."""

    code = "driver"


class StateError(CtrError):
    """The state under ``--root`` or ``--run-root`` can't be read or written."""

    code = "state"


class ImageError(CtrError):
    """An image, a layer or an archive is malformed or breaks a limit."""

    code = "image"
    http = 400


class DigestError(ImageError):
    """Content does not match the digest it was named by."""

    code = "digest"


class LaunchError(CtrError):
    """An operation of the launch program failed; ``by`` is the plugin that asked for it."""

    code = "launch"
    exit_status = 125

    def __init__(self, message: str, *, hint: str = "", by: str = "", errno: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.by = by
        self.errno = errno


class NotExecutableError(LaunchError):
    """The container's command exists but can't be executed."""

    code = "not_executable"
    exit_status = 126
    http = 400


class CommandNotFoundError(LaunchError):
    """The container's command does not exist."""

    code = "command_not_found"
    exit_status = 127
    http = 400
