"""Who a container runs as."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.errors import CtrError, ImageError, InvalidError, NotFoundError
from ctr.security.users import MAX_FILE, MAX_ID, MAX_LINE, Identity, parse, resolve

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
web:x:1000:1001:Web,,,:/srv/web:/bin/sh
short:x:1002:1003
"""
GROUP = b"""\
root:x:0:root
daemon:x:1:
adm:x:4:root,web
web:x:1001:
audio:x:29:web
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(0, 0, (0, 4), "/root")),
        ("0", Identity(0, 0, (0, 4), "/root")),
        ("root", Identity(0, 0, (0, 4), "/root")),
        ("web", Identity(1000, 1001, (1001, 4, 29), "/srv/web")),
        ("1000", Identity(1000, 1001, (1001, 4, 29), "/srv/web")),
        ("web:audio", Identity(1000, 29, (29,), "/srv/web")),
        ("web:29", Identity(1000, 29, (29,), "/srv/web")),
        ("web:4242", Identity(1000, 4242, (4242,), "/srv/web")),
        (":audio", Identity(0, 29, (29,), "/root")),
        ("4242", Identity(4242, 0, (0,), "/")),
        ("4242:4343", Identity(4242, 4343, (4343,), "/")),
        ("short", Identity(1002, 1003, (1003,), "/")),
        (str(MAX_ID), Identity(MAX_ID, 0, (0,), "/")),
    ],
)
def test_as_docker(user: str, expected: Identity) -> None:
    assert resolve(user, PASSWD, GROUP, ()) == expected


def test_without_files() -> None:
    assert resolve("", b"", b"", ()) == Identity(0, 0, (0,), "/")
    assert resolve("7:8", b"", b"", ["9"]) == Identity(7, 8, (8, 9), "/")


def test_group_add() -> None:
    got = resolve("web", PASSWD, GROUP, ["daemon", "77", "audio"])
    assert got.groups == (1001, 4, 29, 1, 77)


@pytest.mark.parametrize("user", ["nobody", "web2", "nobody:audio"])
def test_unknown_user(user: str) -> None:
    with pytest.raises(NotFoundError, match="no matching entries in passwd file"):
        resolve(user, PASSWD, GROUP, ())


def test_unknown_group() -> None:
    for user, extra in (("web:none", []), ("web", ["none"])):
        with pytest.raises(NotFoundError, match="unable to find group none"):
            resolve(user, PASSWD, GROUP, extra)


# CVE-2016-3697 and CVE-2026-46680: an image's passwd gives names that look like ids.
EVIL_PASSWD = b"1000:x:0:0::/root:/bin/sh\n-1:x:0:0::/:\n+5:x:0:0::/:\n2147483648:x:0:0::/:\n"
EVIL_GROUP = b"1001:x:0:\n-1:x:0:\n"


def test_an_id_is_never_looked_up_by_name() -> None:
    assert resolve("1000", EVIL_PASSWD, EVIL_GROUP, ()) == Identity(1000, 0, (0,), "/")
    got = resolve("1000:1001", EVIL_PASSWD, EVIL_GROUP, ["1001"])
    assert got == Identity(1000, 1001, (1001,), "/")


@pytest.mark.parametrize(
    "user",
    ["-1", "+5", "2147483648", "4294967296", "9" * 19, "9" * 100_000, "0:-1", "0:2147483648"],
)
def test_an_id_out_of_range(user: str) -> None:
    with pytest.raises(InvalidError, match="range"):
        resolve(user, EVIL_PASSWD, EVIL_GROUP, ())


@pytest.mark.parametrize(
    "user", [":", "web:", "a:b:c", "a b", "a\n", "a\0b", "a/b", "a,b", " ", "x" * 257, "web:a b"]
)
def test_malformed(user: str) -> None:
    with pytest.raises(InvalidError):
        resolve(user, PASSWD, GROUP, ())


@pytest.mark.parametrize(
    "line",
    [
        b"web",
        b"web:x:0",
        b"web:x::0::/:",
        b"web:x:-1:0::/:",
        b"web:x:0:-1::/:",
        b"web:x:0x0:0::/:",
        b"web:x:2147483648:0::/:",
        b"web:x: 0:0::/:",
        b"web:x:0:0:\0:/:",
        b"#web:x:0:0::/:",
        b":x:0:0::/:",
        b"web:x:0:0:" + b"a" * MAX_LINE + b":/:",
        b"web:x:" + b"0" * 5000 + b":0::/:",
    ],
)
def test_bad_lines_are_passed_over(line: bytes) -> None:
    assert resolve("web", line + b"\n" + PASSWD, GROUP, ()).uid == 1000


def test_the_first_good_line_counts() -> None:
    assert resolve("web", b"web:x:5:6::/five:\n" + PASSWD, GROUP, ()).home == "/five"


def test_home_must_be_absolute() -> None:
    assert resolve("a", b"a:x:5:6::../../etc:\n", b"", ()).home == "/"


def test_bounds() -> None:
    big = b"a" * (MAX_FILE + 1)
    with pytest.raises(ImageError):
        resolve("web", big, GROUP, ())
    with pytest.raises(ImageError):
        resolve("web", PASSWD, big, ())
    many = b"".join(b"g%d:x:%d:root\n" % (n, n) for n in range(1, 66_000))
    with pytest.raises(ImageError, match="groups"):
        resolve("root", PASSWD, many, ())


@given(uid=st.integers(0, MAX_ID), gid=st.none() | st.integers(0, MAX_ID))
def test_ids_are_themselves(uid: int, gid: int | None) -> None:
    text = str(uid) if gid is None else f"{uid}:{gid}"
    assert parse(text) == (uid, gid)
    passwd = f"{uid}:x:0:7::/:\n{gid}:x:0:7::/:\n".encode()
    got = resolve(text, passwd, passwd, ())
    # The lines' own uid is 0: only that one may be found there.
    assert got.uid == uid
    assert got.gid == (gid if gid is not None else 7 if uid == 0 else 0)


@given(
    user=st.text(alphabet="ab01:-+ \n\0", max_size=8),
    passwd=st.binary(max_size=60) | st.text(alphabet="ab01:x/\n", max_size=60).map(str.encode),
    group=st.text(alphabet="ab01:x,\n", max_size=60).map(str.encode),
)
def test_anything_is_an_identity_or_an_error(user: str, passwd: bytes, group: bytes) -> None:
    try:
        got = resolve(user, passwd, group, ())
    except CtrError:
        return
    assert 0 <= got.uid <= MAX_ID
    assert got.groups[0] == got.gid
    assert all(0 <= gid <= MAX_ID for gid in got.groups)
    assert len(set(got.groups)) == len(got.groups)
    assert got.home.startswith("/")
    if user.partition(":")[0].isdigit():
        assert got.uid == int(user.partition(":")[0])
