"""The fake kernel that is shipped for tests: records, answers, fails on demand."""

from __future__ import annotations

import errno
import os

import pytest

from ctr import kernel as linux
from ctr.kernel import Kernel
from ctr.testing.kernel import SYSTEM_CALLS, FakeKernel


def test_no_call_is_real() -> None:
    kernel = FakeKernel()
    for name in SYSTEM_CALLS:
        assert getattr(kernel, name) is not getattr(Kernel, name)
    kernel.mkdir("/dev/null/impossible", 0o755)
    assert kernel.calls == [("mkdir", ("/dev/null/impossible", 0o755), {})]
    assert kernel.names == ["mkdir"]


def test_one_call_fails() -> None:
    kernel = FakeKernel(fail_at=2, error=errno.EROFS)
    kernel.umask(0)
    with pytest.raises(OSError, match="Read-only") as caught:
        kernel.umask(0)
    assert caught.value.errno == errno.EROFS
    kernel.umask(0)
    assert len(kernel.calls) == 3


def test_wrong_arguments_are_an_error_as_with_the_real_call() -> None:
    kernel = FakeKernel()
    with pytest.raises(TypeError):
        kernel.move_mount(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        kernel.mount_setattr(1, "", 0, set=1)  # type: ignore[call-arg]
    assert not kernel.calls


def test_answers() -> None:
    kernel = FakeKernel(results={"getcwd": "/here", "readlink": lambda path: path + "!"})
    assert kernel.getcwd() == "/here"
    assert kernel.readlink("/x") == "/x!"
    assert kernel.open("/x", os.O_RDONLY) != kernel.open("/x", os.O_RDONLY)
    assert kernel.write(1, b"four") == 4
    kernel.capset(1, 3, 0)
    assert kernel.capget() == linux.CapabilitySets(1, 3, 0)


def test_composed_calls_are_recorded_by_their_parts() -> None:
    kernel = FakeKernel()
    kernel.new_mount("overlay", "none", ["ro", "lowerdir=/a=b"], 5, [("upperdir", 7)])
    assert kernel.names == [
        "fsopen",
        "fsconfig_string",
        "fsconfig_fd",
        "fsconfig_flag",
        "fsconfig_string",
        "fsconfig_create",
        "fsmount",
        "close",
    ]
    assert kernel.calls[4].arguments[1:] == ("lowerdir", "/a=b")
    assert kernel.calls[6].arguments[1] == 5
    assert kernel.calls[7].arguments == (1001,)  # what fsopen returned
