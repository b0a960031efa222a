"""A kernel that only remembers what it was asked, and fails when told to."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr import kernel as linux
from ctr.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The system calls of the seam, by name.
SYSTEM_CALLS = tuple(
    name for name, value in vars(Kernel).items() if isinstance(value, staticmethod)
)

_DESCRIPTORS = frozenset({"open", "openat2", "open_tree", "fsopen", "fsmount"})
_FIRST_DESCRIPTOR = 1000  # none that a test could have open by chance


class Call(NamedTuple):
    """One system call as it was made."""

    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class FakeKernel(Kernel):
    """Stands in for ``Kernel``: records each call in ``calls`` and touches nothing.

    ``fail_at`` is the number, from 1, of the one call that raises OSError with ``error``.
    ``results`` overrides what a call returns, by name; a callable is called with the call's
    arguments.  Without: descriptors are fresh numbers, a write is complete, ``clone3``
    returns 0 (the program goes on as the child), ``capget`` returns what ``capset`` set,
    ``fstat`` shows /dev/null and ``fstype_magic`` proc.  Arguments that the real call does
    not take are a TypeError.
    """

    def __init__(
        self,
        *,
        fail_at: int = 0,
        error: int = errno.EIO,
        results: Mapping[str, Any] | None = None,
    ) -> None:
        self.calls: list[Call] = []
        self.fail_at = fail_at
        self.error = error
        self.results = dict(results or {})
        self._capabilities = linux.CapabilitySets(0, 0, 0)
        for name in SYSTEM_CALLS:
            setattr(self, name, functools.partial(self._call, name))

    @property
    def names(self) -> list[str]:
        """The names of the calls made, in order."""
        return [call.name for call in self.calls]

    def _call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        inspect.signature(getattr(Kernel, name)).bind(*arguments, **keywords)
        self.calls.append(Call(name, arguments, keywords))
        if len(self.calls) == self.fail_at:
            raise OSError(self.error, os.strerror(self.error))
        if name in self.results:
            result = self.results[name]
            return result(*arguments, **keywords) if callable(result) else result
        return self._default(name, arguments)

    def _default(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name in _DESCRIPTORS:
            return _FIRST_DESCRIPTOR + len(self.calls)
        if name == "capset":
            self._capabilities = linux.CapabilitySets(*arguments)
        defaults = {
            "capget": self._capabilities,
            "clone3": 0,
            "fs_messages": "",
            "fstat": fake_status(stat.S_IFCHR | 0o666, device=os.makedev(1, 3)),
            "fstype_magic": linux.PROC_SUPER_MAGIC,
            "getcwd": "/",
            "prctl": 0,
            "readlink": "",
            "umask": 0o022,
            "write": len(arguments[-1]) if name == "write" else 0,
        }
        return defaults.get(name)


def fake_status(mode: int, *, device: int = 0) -> os.stat_result:
    """What fstat(2) says of a file of ``mode``; ``device`` is a device file's number."""
    return os.stat_result((mode, *(0,) * 9), {"st_rdev": device})
