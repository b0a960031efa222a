"""What a launch that failed at one of its operations tells."""

from __future__ import annotations

import errno

import pytest

from ctr.errors import InvalidError
from ctr.launch import choose_launcher, failure
from ctr.operations import Unshare

CLONE_NEWTIME = 0x80


def test_a_namespace_that_the_kernel_lacks() -> None:
    operation = Unshare(CLONE_NEWTIME).asked_by("namespaces")
    error = failure([operation], "web", 0, errno.EINVAL, "")
    assert error.message == ("cannot start web: namespaces: unshare time failed: Invalid argument")
    assert "ctr doctor" in error.hint


def test_an_unknown_launcher() -> None:
    with pytest.raises(InvalidError, match="unknown") as caught:
        choose_launcher("nosuch")
    assert caught.value.hint == "known are native and reference"
