"""Resource limits."""

from __future__ import annotations

import resource

import pytest

from ctr.errors import InvalidError, PrivilegeError
from ctr.security.capabilities import ALL, mask_of
from ctr.security.rlimits import RESOURCES, Ulimit, check, parse_ulimit

SYS_RESOURCE = mask_of(["SYS_RESOURCE"])


@pytest.mark.parametrize(
    ("text", "soft", "hard"),
    [
        ("nofile=1024:2048", 1024, 2048),
        ("nofile=1024", 1024, 1024),
        ("nofile=-1", -1, -1),
        ("nofile=0:-1", 0, -1),
        ("nofile=-1:-1", -1, -1),
    ],
)
def test_ulimit(text: str, soft: int, hard: int) -> None:
    assert parse_ulimit(text) == Ulimit("nofile", 7, soft, hard)


@pytest.mark.parametrize(
    "text",
    ["", "nofile", "nofile=", "=1", "nofile=1:", "nofile=a", "nofile=2:1", "nofile=-1:5",
     "nofile=-2", "nofile=1:2:3", "files=1", "as=1", "nofile=1 ", "nofile=" + "9" * 20],
)  # fmt: skip
def test_bad_ulimit(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_ulimit(text)


def test_numbers_are_the_kernels() -> None:
    for name, number in RESOURCES.items():
        known = getattr(resource, f"RLIMIT_{name.upper()}", None)
        assert known in (None, number) or name == "locks"


def test_raising_needs_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda number: (10, 20))
    check([parse_ulimit("nofile=5:20")], 0)
    for text in ("nofile=5:21", "nofile=-1"):
        with pytest.raises(PrivilegeError, match=r"nofile .* CAP_SYS_RESOURCE"):
            check([parse_ulimit(text)], ALL & ~SYS_RESOURCE)
        check([parse_ulimit(text)], SYS_RESOURCE)


def test_below_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda number: (-1, -1))
    check([parse_ulimit("nofile=-1"), parse_ulimit("core=99999999")], 0)
