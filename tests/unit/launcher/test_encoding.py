"""The program's encoding: every operation round-trips, damage is an InvalidError."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr import encoding
from ctr import operations as ops
from ctr.encoding import MAX_SIZE, decode, encode
from ctr.errors import InvalidError
from ctr.program import OPERATIONS, Operation, Phase

# What a path or an argument may hold: any bytes but NUL, as Python's str shows them.
TEXT = st.binary(max_size=40).map(
    lambda raw: raw.replace(b"\0", b"").decode(errors="surrogateescape")
)
INT = st.integers(-(2**63), 2**63 - 1)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "int": INT,
    "str": TEXT,
    "bytes": st.binary(max_size=40),
    "tuple[int, ...]": st.lists(INT, max_size=4).map(tuple),
    "tuple[str, ...]": st.lists(TEXT, max_size=4).map(tuple),
}
SAMPLES: dict[str, object] = {
    "int": 1,
    "str": "x",
    "bytes": b"x",
    "tuple[int, ...]": (1, 2),
    "tuple[str, ...]": ("x", "y"),
}
# The verbs of descriptions; a new one is welcome as long as it is a verb.
VERBS = """
attach become change clone connect cover execute join limit link load make map mark mask mount
move open pivot_root set stage start stay sync unshare watch write
"""


def operation(cls: type[Operation]) -> st.SearchStrategy[Operation]:
    """Any operation of a class, in any phase."""
    made = st.builds(cls, *(FIELDS[kind] for _, kind in cls.fields))
    return st.tuples(made, st.sampled_from(Phase)).map(lambda pair: pair[0].at(pair[1]))


PROGRAMS = st.lists(
    st.sampled_from(sorted(OPERATIONS)).flatmap(lambda opcode: operation(OPERATIONS[opcode])),
    max_size=8,
).map(lambda program: sorted(program, key=lambda item: item.phase))


@pytest.mark.parametrize("cls", OPERATIONS.values(), ids=lambda cls: cls.__name__)
def test_every_operation_round_trips(cls: type[Operation]) -> None:
    program = [cls(*(SAMPLES[kind] for _, kind in cls.fields))]
    assert decode(encode(program)) == (program, 0)


@given(PROGRAMS, st.integers(0, 2**32 - 1))
def test_any_program_round_trips(program: list[Operation], flags: int) -> None:
    assert decode(encode(program, flags=flags)) == (program, flags)


@given(PROGRAMS, st.data())
def test_damage_is_refused_or_is_another_program(
    program: list[Operation], data: st.DataObject
) -> None:
    damaged = bytearray(encode(program))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        decoded, flags = decode(bytes(damaged))
    except InvalidError:
        return
    # Nothing is overlooked: what was understood is all that was there.
    assert encode(decoded, flags=flags) == damaged


@given(PROGRAMS, st.data())
def test_cut_or_longer_programs_are_refused(program: list[Operation], data: st.DataObject) -> None:
    raw = encode(program)
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(InvalidError):
        decode(raw[:cut])
    with pytest.raises(InvalidError):
        decode(raw + data.draw(st.binary(min_size=1, max_size=9)))


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(InvalidError):
        decode(encoding.MAGIC + noise)


def test_another_version_is_refused() -> None:
    raw = bytearray(encode([]))
    struct.pack_into("<I", raw, len(encoding.MAGIC), encoding.VERSION + 1)
    with pytest.raises(InvalidError, match=f"version {encoding.VERSION + 1}"):
        decode(bytes(raw))


def test_an_unknown_operation_is_refused() -> None:
    raw = bytearray(encode([ops.PivotRoot()]))
    struct.pack_into("<H", raw, 24, 9999)
    with pytest.raises(InvalidError, match="unknown operation 9999"):
        decode(bytes(raw))


def test_a_phase_that_goes_backwards_is_refused() -> None:
    with pytest.raises(InvalidError, match="backwards"):
        encode([ops.PivotRoot(), ops.Unshare(0)])
    raw = bytearray(encode([ops.PivotRoot(), ops.PivotRoot()]))
    raw[24 + 2] = Phase.LAST
    with pytest.raises(InvalidError):
        decode(bytes(raw))


def test_a_count_is_checked_before_it_is_believed() -> None:
    raw = bytearray(encode([ops.Identity(0, 0, ())]))
    struct.pack_into("<I", raw, len(raw) - 4, 2**32 - 1)
    with pytest.raises(InvalidError, match="count does not fit"):
        decode(bytes(raw))


def test_a_string_holds_no_nul() -> None:
    with pytest.raises(InvalidError, match="NUL"):
        encode([ops.Hostname("a\0b")])


def test_the_size_is_bounded() -> None:
    with pytest.raises(InvalidError, match="more than") as caught:
        encode([ops.Exec(("x" * MAX_SIZE,), (), "")])
    assert caught.value.hint


@pytest.mark.parametrize("cls", OPERATIONS.values(), ids=lambda cls: cls.__name__)
def test_a_description_is_one_line_that_starts_with_a_verb(cls: type[Operation]) -> None:
    line = cls(*(SAMPLES[kind] for _, kind in cls.fields)).describe()
    assert "\n" not in line
    assert line.split()[0] in VERBS.split(), line
