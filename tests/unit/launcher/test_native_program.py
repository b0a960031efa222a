"""The compiled launcher's decoder: what it refuses, and that no damage makes it read wild."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr import encoding
from ctr.errors import InvalidError
from ctr.launcher import build
from ctr.operations import (
    Capabilities,
    Chdir,
    Clone,
    Exec,
    Identity,
    MountAt,
    MoveMount,
    NewMount,
    NoNewPrivileges,
    OomScore,
    OpenPath,
    OpenTree,
    PivotRoot,
    Seccomp,
    Sync,
    WatchOom,
)
from ctr.program import MAX_SLOTS, NO_SLOT, OPERATIONS, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ctr.program import Operation

HERE = os.path.dirname(os.path.abspath(__file__))
HEADER = 24

PROGRAM: list[Operation] = [
    WatchOom("/sys/fs/cgroup/memory.events"),
    OpenTree(0, "/somewhere", 1),
    NewMount(1, "overlay", "overlay", ("lowerdir=a:b", "metacopy"), 0, ("upperdir=0",)),
    Clone(0x20000000),
    OomScore(5),
    Sync(1),
    MountAt("proc", "/proc"),
    MoveMount(0, "/volume"),
    Sync(2).at(Phase.SETUP),
    PivotRoot(),
    Chdir("/"),
    Seccomp(bytes(range(80))),
    Identity(1, 2, (3, 4, 5)),
    Capabilities(1, 1),
    Exec(("sh", "-c", "echo ü"), ("A=b", ""), "/bin:/usr/bin"),
]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], str]]:
    """The decoder, with the sanitizers: ``good …``, or the operation's index and the fault."""
    binary = os.fspath(tmp_path_factory.mktemp("check") / "check_programs")
    sources = [
        os.path.join(HERE, "check_programs.c"),
        *(name for name in build.sources(freestanding=False) if not name.endswith("/main.c")),
    ]
    include = os.path.dirname(sources[1])
    flags = ["-std=gnu11", "-D_GNU_SOURCE", *build.WARNINGS, *build.SANITIZERS, "-I", include]
    subprocess.run([build.compiler(), *flags, "-o", binary, *sources], check=True)
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    with subprocess.Popen(
        [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin
        assert stdout

        def check(data: bytes) -> str:
            stdin.write(struct.pack("<I", len(data)) + data)
            stdin.flush()
            verdict = stdout.readline().decode()
            assert verdict.endswith("\n"), "the sanitizer has found something"
            return verdict.strip()

        yield check
        stdin.close()
        assert process.wait() == 0


def good(data: bytes) -> bool:
    """What ctr.encoding says of a program."""
    try:
        encoding.decode(data)
    except InvalidError:
        return False
    return True


def test_a_program_is_good(check: Callable[[bytes], str]) -> None:
    assert check(encoding.encode(PROGRAM)).startswith("good")


@given(data=st.data())
@settings(max_examples=600, deadline=None)
def test_damage_is_refused_or_means_the_same(
    check: Callable[[bytes], str], data: st.DataObject
) -> None:
    """What the launcher accepts, the specification accepts too."""
    program = bytearray(encoding.encode(PROGRAM))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(program) - 1))
        match data.draw(st.sampled_from(["byte", "word", "cut", "insert", "swap"])):
            case "byte":
                program[at] = data.draw(st.integers(0, 255))
            case "word":
                edge = data.draw(st.sampled_from([0, 1, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 24]))
                program[at : at + 4] = struct.pack("<I", edge)
            case "cut":
                del program[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                program[at:at] = data.draw(st.binary(max_size=20))
            case "swap":
                program[at:] = program[at:][::-1]
        if len(program) < HEADER:
            break
    if len(program) >= HEADER and data.draw(st.booleans()):
        program[20:24] = struct.pack("<I", len(program))  # so that more than the header is read
    verdict = check(bytes(program))
    if verdict.startswith("good"):
        assert good(bytes(program))


@given(payload=st.binary(max_size=300), opcode=st.sampled_from(sorted(OPERATIONS)))
@settings(max_examples=600, deadline=None)
def test_wild_payloads(check: Callable[[bytes], str], payload: bytes, opcode: int) -> None:
    """Of a lone operation the two differ in its fields alone."""
    phase = OPERATIONS[opcode].default_phase
    record = struct.pack("<HBBI", opcode, phase, 0, len(payload)) + payload
    data = struct.pack("<8s4I", b"ctrprog\0", 1, 0, 1, HEADER + len(record)) + record
    if check(data) == "0 has damaged fields":
        assert not good(data) or out_of_range(data)


def out_of_range(data: bytes) -> bool:
    """A slot that is none is the launcher's affair alone."""
    (operation,), _ = encoding.decode(data)
    slots = [v for k, v in operation.items() if k in ("slot", "null", "cgroup", "userns")]
    return any(not NO_SLOT <= slot < MAX_SLOTS for slot in slots) or NO_SLOT in slots


@given(cut=st.integers(0, 2000))
@settings(max_examples=100, deadline=None)
def test_a_prefix_is_never_good(check: Callable[[bytes], str], cut: int) -> None:
    data = encoding.encode(PROGRAM)
    assert not check(data[: cut % len(data)]).startswith("good")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({8: struct.pack("<I", 2)}, "-1 a launch program of another version"),
        ({0: b"CTR"}, "-1 no launch program"),
        ({16: struct.pack("<I", 3)}, "-1 a launch program of another length than its header says"),
        ({20: struct.pack("<I", 3)}, "-1 a launch program of another size than its header says"),
        ({24: struct.pack("<H", 999)}, "0 is of a kind that this launcher does not know"),
        ({26: b"\x08"}, "0 is damaged"),
        ({27: b"\x01"}, "0 is damaged"),
        ({28: struct.pack("<I", 1 << 30)}, "0 is cut off"),
        ({32: struct.pack("<I", 1 << 30)}, "0 has damaged fields"),
    ],
)
def test_damage_is_named(
    check: Callable[[bytes], str], change: dict[int, bytes], fault: str
) -> None:
    data = bytearray(encoding.encode(PROGRAM))
    for offset, patch in change.items():
        data[offset : offset + len(patch)] = patch
    assert check(bytes(data)) == fault


MISPLACED = "does not belong to its phase"


@pytest.mark.parametrize(
    ("operations", "fault"),
    [
        ([], "-1 a launch program without Exec"),
        ([Clone(0)], "-1 a launch program without Exec"),
        ([Exec((), (), "")], "0 comes without one Clone before it"),
        ([Clone(0), Clone(0), Exec((), (), "")], "2 comes without one Clone before it"),
        ([Clone(0), Exec((), (), ""), NoNewPrivileges()], "2 comes after Exec"),
        ([Clone(0).at(Phase.PREPARE)], f"0 {MISPLACED}"),
        ([PivotRoot().at(Phase.PREPARE)], f"0 {MISPLACED}"),
        ([Clone(0), OomScore(1).at(Phase.LAST)], f"1 {MISPLACED}"),
        ([Sync(1).at(Phase.PREPARE)], f"0 {MISPLACED}"),
        ([Clone(0), Sync(1), OomScore(1)], f"2 {MISPLACED}"),
        ([OpenPath(0, "/", 0).at(Phase.WATCH)], f"0 {MISPLACED}"),
        ([OpenPath(MAX_SLOTS, "/", 0)], "0 has damaged fields"),
        ([OpenPath(NO_SLOT, "/", 0)], "0 has damaged fields"),
        ([Clone(0, -2)], "0 has damaged fields"),
    ],
)
def test_shape_is_checked(
    check: Callable[[bytes], str], operations: list[Operation], fault: str
) -> None:
    assert check(encoding.encode(operations)) == fault


def test_going_back_to_an_earlier_phase_is_refused(check: Callable[[bytes], str]) -> None:
    first, second = (encoding.encode([op])[HEADER:] for op in (Clone(0), OpenTree(0, "/")))
    data = struct.pack("<8s4I", b"ctrprog\0", 1, 0, 2, HEADER + len(first + second))
    assert check(data + first + second) == "1 goes back to an earlier phase"


def test_table_is_the_specification() -> None:
    """operations.c has every operation, with its fields."""
    folder = os.path.dirname(build.sources(freestanding=False)[0])
    with open(os.path.join(folder, "operations.c"), encoding="utf-8") as file:
        rows = re.findall(r'^\t\{(\w+), "(\w*)",', file.read(), re.MULTILINE)
    named = {"OP_CLONE": 10, "OP_SYNC": 13, "OP_INIT": 40, "OP_EXEC": 42}
    table = {named.get(opcode) or int(opcode): fields for opcode, fields in rows}
    assert len(table) == len(rows)
    letters = {
        "int": "i",
        "str": "s",
        "bytes": "b",
        "tuple[int, ...]": "I",
        "tuple[str, ...]": "S",
    }
    for opcode, operation in OPERATIONS.items():
        wanted = "".join(letters[kind] for _, kind in operation.fields)
        assert re.sub("[lL]", "i", table[opcode]) == wanted, operation
    assert set(table) == set(OPERATIONS)
