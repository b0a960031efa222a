"""Profiles from files."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.errors import InvalidError, NotFoundError, UnsupportedError
from ctr.security.capabilities import DEFAULT, mask_of
from ctr.security.seccomp import filter_from_file
from ctr.security.seccomp.compiler import compile_profile
from ctr.security.seccomp.load import MAX_FILE, load_profile
from ctr.security.seccomp.profile import (
    ALLOW,
    ERRNO,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    TRACE,
    TRAP,
    Condition,
    Profile,
    Rule,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Decide = Callable[[bytes, int, int, Sequence[int]], int]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Profile]:
    def load(document: object, capabilities: int = DEFAULT, kernel: str = "6.1.0-9") -> Profile:
        path = tmp_path / "profile.json"
        path.write_text(json.dumps(document))
        return load_profile(str(path), "x86_64", kernel, capabilities)

    return load


def one(**entry: object) -> dict[str, object]:
    """A profile with one rule."""
    rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW"} | entry
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}


def test_everything(load: Callable[..., Profile]) -> None:
    profile = load(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "archMap": [
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            ],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls": [
                {"names": ["read", "not_a_call"], "action": "SCMP_ACT_ALLOW", "args": None},
                {
                    "name": "clone",
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 22,
                    "args": [
                        {"index": 0, "value": 6, "valueTwo": 4, "op": "SCMP_CMP_MASKED_EQ"},
                        {"index": 1, "value": 9, "op": "SCMP_CMP_GE"},
                    ],
                    "comment": "ignored",
                },
            ],
        }
    )
    assert profile == Profile(
        ERRNO | 38,
        ("x86_64", "i386"),
        (
            Rule(("read", "not_a_call"), ALLOW),
            Rule(
                ("clone",),
                ERRNO | 22,
                (Condition(0, "masked", 4, 6), Condition(1, "ge", 9)),
            ),
        ),
        2,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCMP_ACT_KILL", KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", KILL_PROCESS),
        ("SCMP_ACT_TRAP", TRAP),
        ("SCMP_ACT_ERRNO", ERRNO | 1),
        ("SCMP_ACT_TRACE", TRACE | 1),
        ("SCMP_ACT_LOG", LOG),
        ("SCMP_ACT_ALLOW", ALLOW),
    ],
)
def test_actions(load: Callable[..., Profile], name: str, value: int) -> None:
    assert load({"defaultAction": name}).default == value


def test_one_argument_compared_twice_is_two_rules(load: Callable[..., Profile]) -> None:
    arguments = [{"index": 0, "value": n, "op": "SCMP_CMP_EQ"} for n in (1, 2)]
    assert [rule.conditions for rule in load(one(args=arguments)).rules] == [
        (Condition(0, "eq", 1),),
        (Condition(0, "eq", 2),),
    ]


@pytest.mark.parametrize(
    ("entry", "counts"),
    [
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.10"}}, False),
        ({"excludes": {"minKernel": "6.1"}}, False),
        ({"includes": {}, "excludes": {}}, True),
        ({"includes": {"arches": ["amd64"], "caps": ["CAP_SYS_ADMIN"]}}, False),
    ],
)
def test_conditions_of_rules(
    load: Callable[..., Profile], entry: dict[str, Any], counts: bool
) -> None:
    assert bool(load(one(**entry), mask_of(["CHOWN"]), "6.1.0-9-amd64").rules) is counts


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"syscalls": []},
        {"defaultAction": "SCMP_ACT_PERHAPS"},
        {"defaultAction": None},
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096},
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": True},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [1]},
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86"]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86"],
            "archMap": [{"architecture": "SCMP_ARCH_X86_64"}],
        },
        one(name="write"),
        one(names=[1]),
        one(names="read"),
        one(action=1),
        one(args=[{"index": 6, "op": "SCMP_CMP_EQ"}]),
        one(args=[{"index": -1, "op": "SCMP_CMP_EQ"}]),
        one(args=[{"index": 0, "op": "=="}]),
        one(args=[{"index": 0, "value": 2**64, "op": "SCMP_CMP_EQ"}]),
        one(args=[{"index": 0, "value": "1", "op": "SCMP_CMP_EQ"}]),
        one(includes={"caps": ["CAP_FLY"]}),
        one(includes={"minKernel": "six"}),
        one(excludes=[1]),
    ],
)
def test_malformed(load: Callable[..., Profile], document: object) -> None:
    with pytest.raises(InvalidError) as caught:
        load(document)
    assert caught.value.hint


def test_notify(load: Callable[..., Profile]) -> None:
    with pytest.raises(UnsupportedError, match="listener"):
        load(one(action="SCMP_ACT_NOTIFY"))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100000, b" " * (MAX_FILE + 1)])
def test_not_json(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(data)
    with pytest.raises(InvalidError, match=r"profile\.json"):
        load_profile(str(path), "x86_64", "6.1", DEFAULT)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        filter_from_file(str(tmp_path / "none"), DEFAULT)


def test_default_action_of_a_rule_hides_nothing(
    load: Callable[..., Profile], decide: Decide
) -> None:
    """As runc has it: a rule that says what the default says is not there."""
    document = one()
    document["syscalls"] = [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
    ]
    program = compile_profile(load(document))
    assert decide(program, 0xC000003E, 0, ()) == ALLOW


def test_too_long(load: Callable[..., Profile]) -> None:
    arguments = [{"index": 0, "value": n, "op": "SCMP_CMP_EQ"} for n in range(1000)]
    with pytest.raises(InvalidError, match="instructions"):
        compile_profile(load(one(args=arguments)))


KEYS = """
    defaultAction defaultErrnoRet architectures archMap syscalls names name action args index value
    op includes excludes caps minKernel flags
"""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(document=json_values, action=st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]))
@settings(max_examples=50)
def test_any_document_is_a_profile_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, document: object, action: str
) -> None:
    if isinstance(document, dict):
        document.setdefault("defaultAction", action)
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(document))
    with contextlib.suppress(InvalidError):  # and no other exception
        profile = load_profile(str(path), "x86_64", "6.1", DEFAULT)
        assert len(compile_profile(profile)) % 8 == 0
