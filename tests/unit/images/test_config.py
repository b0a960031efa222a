"""The image configuration is hostile JSON until it is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.errors import ImageError
from ctr.images.config import MAX_ITEMS, MAX_TEXT, ImageConfig, parse


def test_everything() -> None:
    section = {
        "Env": ["A=b", "C=", "nothing", "=x"],
        "Entrypoint": ["/e"],
        "Cmd": ["c", ""],
        "WorkingDir": "work",
        "User": "1000:staff",
        "Volumes": {"/data/": {}, "/data": {}, "/../etc": {}},
        "Labels": {"k": "v"},
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
    }
    assert parse({"config": section}) == ImageConfig(
        env=("A=b", "C="),
        entrypoint=("/e",),
        cmd=("c", ""),
        workdir="/work",
        user="1000:staff",
        volumes=("/data", "/etc"),
        labels={"k": "v"},
        stop_signal="SIGQUIT",
        exposed=("80/tcp", "53/udp"),
    )


@pytest.mark.parametrize("config", [{}, {"config": None}, {"config": {"Env": None, "User": None}}])
def test_nothing(config: dict[str, Any]) -> None:
    assert parse(config) == ImageConfig((), (), (), "", "", (), {}, "", ())


@pytest.mark.parametrize(
    "section",
    [
        [],
        "x",
        {"Env": "A=b"},
        {"Env": [1]},
        {"Env": {"A": "b"}},
        {"Env": ["A=\0"]},
        {"Env": ["A=b"] * (MAX_ITEMS + 1)},
        {"Env": ["A=" + "b" * MAX_TEXT]},
        {"Env": ["A=\ud800"]},
        {"Entrypoint": "sh"},
        {"Cmd": [None]},
        {"WorkingDir": ["/"]},
        {"WorkingDir": "/" + "a" * 5000},
        {"User": 0},
        {"User": True},
        {"Volumes": ["/data"]},
        {"Volumes": {"/": {}}},
        {"Volumes": {"/a/../..": {}}},
        {"Labels": {"a": 1}},
        {"Labels": ["a"]},
        {"StopSignal": 15},
        {"StopSignal": "TERM; rm"},
        {"ExposedPorts": {"80/x": {}}},
        {"ExposedPorts": {"http": {}}},
    ],
)
def test_refused(section: object) -> None:
    with pytest.raises(ImageError, match="the image's configuration"):
        parse({"config": section})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
_KEYS = st.sampled_from(
    ["Env", "Entrypoint", "Cmd", "WorkingDir", "User", "Volumes", "Labels", "StopSignal"]
)


@given(st.dictionaries(_KEYS, _JSON))
def test_any_json_is_parsed_or_refused(section: dict[str, Any]) -> None:
    try:
        parsed = parse({"config": section})
    except ImageError:
        return
    for path in (*parsed.volumes, parsed.workdir or "/"):
        assert path.startswith("/")
        assert not {"..", ".", ""}.intersection(path.split("/")[1:]) or path == "/"
    json.dumps(parsed)
