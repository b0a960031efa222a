"""Capabilities."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.errors import InvalidError, PrivilegeError
from ctr.security.capabilities import (
    ALL,
    DEFAULT,
    NAMES,
    mask_of,
    names_of,
    own_capabilities,
    resolve,
)

if TYPE_CHECKING:
    from pathlib import Path

names = st.lists(st.sampled_from(NAMES), max_size=5)
masks = st.integers(0, ALL)


def test_numbers_are_the_kernels() -> None:
    # from linux/capability.h
    assert len(NAMES) == 41
    for name, bit in {"CHOWN": 0, "SETPCAP": 8, "NET_RAW": 13, "SYS_ADMIN": 21, "MKNOD": 27,
                      "SETFCAP": 31, "SYSLOG": 34, "BPF": 39,
                      "CHECKPOINT_RESTORE": 40}.items():  # fmt: skip
        assert NAMES[bit] == name


def test_this_kernel_has_no_more() -> None:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        assert int(file.read()) <= len(NAMES) - 1


def test_docker_gives_fourteen() -> None:
    assert DEFAULT == 0xA80425FB  # CapBnd of a docker container
    assert len(names_of(DEFAULT)) == 14


@pytest.mark.parametrize("text", ["NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "Cap_Net_Admin"])
def test_spelling(text: str) -> None:
    assert mask_of([text]) == 1 << 12


@given(masks)
def test_names_and_masks(mask: int) -> None:
    assert mask_of(names_of(mask)) == mask


@pytest.mark.parametrize(("text", "near"), [("NET_ADMN", "NET_ADMIN"), ("sysadmin", "SYS_ADMIN")])
def test_unknown_name_has_the_nearest(text: str, near: str) -> None:
    for add, drop in (([text], []), ([], [text])):
        with pytest.raises(InvalidError, match=re.escape(repr(text))) as caught:
            resolve(add, drop, privileged=True, own=ALL)
        assert near in caught.value.hint


@pytest.mark.parametrize(
    ("add", "drop", "privileged", "expected"),
    [
        ([], [], False, DEFAULT),
        (["NET_ADMIN"], [], False, DEFAULT | 1 << 12),
        ([], ["CHOWN"], False, DEFAULT & ~1),
        (["CHOWN"], ["CHOWN"], False, DEFAULT),
        ([], ["ALL"], False, 0),
        (["CHOWN"], ["all"], False, 1),
        (["CHOWN", "NET_ADMIN"], ["ALL", "NET_ADMIN"], False, 1 | 1 << 12),
        (["ALL"], [], False, ALL),
        (["ALL"], ["CHOWN"], False, ALL & ~1),
        (["ALL", "CHOWN"], ["CHOWN"], False, ALL & ~1),
        (["cap_all"], ["ALL"], False, ALL),
        ([], ["ALL"], True, ALL),
    ],
)
def test_dockers_rules(add: list[str], drop: list[str], privileged: bool, expected: int) -> None:
    assert resolve(add, drop, privileged=privileged, own=ALL) == expected


def test_all_is_what_ctr_has() -> None:
    own = ALL & ~mask_of(["SYS_RESOURCE"])
    assert resolve(["ALL"], [], privileged=False, own=own) == own
    assert resolve([], [], privileged=True, own=own) == own


@pytest.mark.parametrize("privileged", [False, True])
def test_a_named_one_that_ctr_lacks(privileged: bool) -> None:
    own = ALL & ~mask_of(["SYS_RESOURCE"])
    with pytest.raises(PrivilegeError, match="CAP_SYS_RESOURCE"):
        resolve(["sys_resource"], [], privileged=privileged, own=own)


@given(add=names, drop=names, privileged=st.booleans(), own=masks)
def test_never_more_than_own(add: list[str], drop: list[str], privileged: bool, own: int) -> None:
    own |= mask_of(add)
    got = resolve(add, drop, privileged=privileged, own=own)
    assert got & ~own == 0
    assert mask_of(add) & ~got == 0
    if not privileged:
        assert got & mask_of(drop) & ~mask_of(add) == 0


def test_own(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t000001ff\nCapBnd:\t0000f0f0\nCapAmb:\t0\n")
    assert own_capabilities(str(status)) == 0xF0
    assert own_capabilities() & ~ALL == 0
