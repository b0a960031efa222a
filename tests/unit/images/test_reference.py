"""Docker's grammar of image names."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ctr.errors import InvalidError
from ctr.images.reference import parse

HEX = "0123456789abcdef" * 4

_COMPONENTS = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True).filter(
    lambda text: len(text) <= 40
)
_REGISTRIES = st.sampled_from(
    ["", "docker.io", "index.docker.io", "localhost", "localhost:5000", "a.b", "[::1]:80", "UPPER"]
)
_TAGS = st.just("") | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("base", "docker.io/library/base:latest", "base:latest"),
        ("base:3.1", "docker.io/library/base:3.1", "base:3.1"),
        ("library/base", "docker.io/library/base:latest", "base:latest"),
        ("docker.io/base", "docker.io/library/base:latest", "base:latest"),
        ("index.docker.io/u/base", "docker.io/u/base:latest", "u/base:latest"),
        ("localhost/base", "localhost/base:latest", "localhost/base:latest"),
        ("localhost:5000/base:v1", "localhost:5000/base:v1", "localhost:5000/base:v1"),
        ("quay.io/a/b/c", "quay.io/a/b/c:latest", "quay.io/a/b/c:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        (f"a@sha256:{HEX}", f"docker.io/library/a@sha256:{HEX}", f"a@sha256:{HEX}"),
        (f"a:t@sha256:{HEX}", f"docker.io/library/a:t@sha256:{HEX}", f"a:t@sha256:{HEX}"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
        ("a__b-.c".replace("-.", "--"), "docker.io/library/a__b--c:latest", "a__b--c:latest"),
    ],
)
def test_parse(text: str, canonical: str, familiar: str) -> None:
    assert str(parse(text)) == canonical
    assert parse(text).familiar() == familiar


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "/", "a/", "/a", "a//b", "a:", "a:b:c", "A", "library/A", "a b", "a@", "a@sha256:ab",
        f"a@sha256:{HEX.upper()}", f"a@md5:{HEX[:32]}", HEX, ".a", "a.", "a___b", "a..b", "-a",
        "a/../b", "http://a", "a:" + "t" * 129, "a" * 256, "a\n", "a\0", "ä", "x.y/", "a:-t",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="as an image name"):
        parse(text)


@given(_REGISTRIES, st.lists(_COMPONENTS, min_size=1, max_size=4), _TAGS, st.booleans())
def test_each_form_parses_to_the_same(
    registry: str, components: list[str], tag: str, has_digest: bool
) -> None:
    assume(registry or len(components) == 1 or "." not in components[0])
    text = "/".join([registry] * bool(registry) + components)
    text += f":{tag}" * bool(tag) + f"@sha256:{HEX}" * has_digest
    parsed = parse(text)
    assert parse(str(parsed)) == parsed
    assert parse(parsed.familiar()) == parsed
    assert bool(parsed.tag or parsed.digest)


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = parse(text)
    except InvalidError:
        return
    assert parse(str(parsed)) == parsed
