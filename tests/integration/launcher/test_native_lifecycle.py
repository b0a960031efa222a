"""The compiled launcher on the real kernel: from the spawn to the cleaner."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct
import time

import pytest

from ctr import encoding
from ctr.launcher import protocol
from ctr.operations import Exec, Init, MakeNode, MountAt, Seccomp, WatchOom

from .harness import (
    FRESH,
    NEWPID,
    Launch,
    alive,
    container,
    launch,
    read_until,
    status_lines,
    wait_gone,
)

pytestmark = pytest.mark.root

MEGABYTE = 1 << 20
ZERO = MakeNode("/dev/zero", 0o20666, 1, 5)
NULL = MakeNode("/dev/null", 0o20666, 1, 3)  # what a shell gives its background jobs to read
WAIT = "echo ready; while :; do sleep 0.02; done"
INITS = pytest.mark.parametrize("last", [[], [Init()]], ids=["plain", "init"])


# -- status -------------------------------------------------------------------------------


def test_messages_of_a_whole_life(run, run_dir):
    before = time.time_ns()
    result = run("true")
    kinds = [protocol.HELLO, *[protocol.SYNC] * 3, protocol.STARTED, protocol.EXITED, 0]
    assert result.kinds == kinds
    assert result.events[0].a == protocol.VERSION
    assert [event.a for event in result.events if event.kind == protocol.SYNC] == [1, 2, 3]
    assert len({event.b for event in result.events[1:5]}) == 1  # one PID
    started, exited = status_lines(run_dir)
    assert started[:2] == ["started", str(result.events[4].b)]
    assert int(started[2]) > 0
    assert exited[:3] == ["exited", "0", "0"]
    assert before < int(started[3]) <= int(exited[3]) < time.time_ns()


def test_start_time_is_the_kernels(begin, run_dir):
    with begin("sh", "-c", WAIT) as running:
        assert running.start()
        with open(f"/proc/{running.child}/stat", encoding="ascii") as file:
            start_time = file.read().rpartition(")")[2].split()[19]
        assert status_lines(run_dir)[0][2] == start_time


@INITS
@pytest.mark.parametrize("status", [0, 1, 255])
def test_exit_status_passes_through(run, status, last):
    assert run("sh", "-c", f"exit {status}", last=last).exit_code == status


def test_death_by_signal_passes_through(begin):
    with begin("sh", "-c", WAIT) as running:
        assert running.start()
        running.send(protocol.SIGNAL, signal.SIGKILL)
        result = running.finish()
        assert os.WIFSIGNALED(result.status)
        assert os.WTERMSIG(result.status) == signal.SIGKILL


def test_init_reports_its_payloads_signal_as_a_shell_does(run):
    assert run("sh", "-c", "kill -9 $$", last=[Init()]).exit_code == 137


@INITS
def test_signal_reaches_the_command(begin, last):
    with begin("sh", "-c", "trap 'echo got it; exit 9' TERM; " + WAIT, last=last) as running:
        assert running.start()
        read_until(running.stdout, b"ready\n")
        running.send(protocol.SIGNAL, signal.SIGTERM)
        result = running.finish()
        assert (result.stdout, result.exit_code) == (b"got it\n", 9)


def test_init_reaps_orphans(run):
    script = "(sleep 0.05 & ); sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status; echo end"
    assert run("sh", "-c", script, last=[Init()], setup=[NULL]).stdout == b"end\n"


@pytest.mark.parametrize(
    ("text", "killed"),
    [
        ("oom_kill 1\n", 1),
        ("oom_kill_disable 1\noom_kill 0\n", 0),
        ("", 0),
        ("max 1\noom_kill 12", 1),
    ],
)
def test_oom_kill_is_recorded(run, run_dir, tmp_path, text, killed):
    counter = tmp_path / "memory.events"
    counter.write_text(text)
    result = run("true", watch=[WatchOom(os.fspath(counter))])
    assert [event.b for event in result.events if event.kind == protocol.EXITED] == [killed]
    assert status_lines(run_dir)[1][2] == str(killed)


def test_every_operation_is_traced_in_order(run, root):
    count = len(container(root, "true"))
    events = run("true", trace=True).events
    assert [event.a for event in events if event.kind == protocol.TRACE] == list(range(count))


# -- failures -----------------------------------------------------------------------------


def test_failing_operation_is_named(run, run_dir, root):
    operations = container(root, "true", setup=[MountAt("tmpfs", "/tmp", ("sise=1",))])
    index = next(i for i, op in enumerate(operations) if getattr(op, "fstype", "") == "tmpfs")
    failure = run("true", setup=[MountAt("tmpfs", "/tmp", ("sise=1",))]).failure
    assert failure.a == index
    assert failure.b == errno.EINVAL
    assert "sise" in failure.text  # the kernel's own words
    assert status_lines(run_dir) == []


@INITS
@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("no-such-command", errno.ENOENT),
        ("/no/such/command", errno.ENOENT),
        ("/etc/passwd/x", errno.ENOENT),
        ("/tmp", errno.EACCES),
        ("/tmp/text", errno.EACCES),
        ("text", errno.EACCES),  # found in PATH
        ("/tmp/garbage", errno.ENOEXEC),
    ],
)
def test_command_that_cannot_be_executed(compiled, root, run_dir, command, number, last):
    for name, mode in (("text", 0o644), ("garbage", 0o755)):
        with open(f"{root}/tmp/{name}", "w", encoding="ascii") as file:
            file.write("neither ELF nor #!")
        os.chmod(f"{root}/tmp/{name}", mode)
    operations = container(root, command, last=last)
    operations[-1] = Exec((command,), (), "/etc:/tmp")
    failure = launch(compiled, operations, run_dir).failure
    assert failure
    assert (failure.a, failure.b) == (len(operations) - 1, number)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:8] + struct.pack("<I", 2) + data[12:], "version"),
        (lambda data: data[:-1], "size"),
        (lambda data: b"x" + data[1:], "no launch program"),
        (lambda data: data[:24] + struct.pack("<H", 999) + data[26:], "operation 0"),
        (lambda _: b"", "empty"),
    ],
)
def test_damaged_program_is_refused(compiled, root, run_dir, damage, words):
    program = damage(encoding.encode(container(root, "true")))
    with Launch(compiled, program, run_dir) as running:
        message = running.receive()
        assert (message.kind, message.a, message.b) == (protocol.FAILED, -1, errno.EINVAL)
        assert words in message.text
        assert running.receive().kind == 0
        assert os.waitstatus_to_exitcode(running.wait()) == 1


@INITS
def test_death_before_the_exec_is_no_start(run, run_dir, last):
    kill_all = struct.pack("<HBBI", 0x06, 0, 0, 0x80000000)  # SECCOMP_RET_KILL_PROCESS
    result = run("true", last=[*last, Seccomp(kill_all)])
    assert result.failure.a == -1
    assert "died" in result.failure.text
    assert protocol.STARTED not in result.kinds
    assert status_lines(run_dir) == []


def test_second_supervisor_is_refused(begin, run_dir):
    with begin("sh", "-c", WAIT) as running:
        assert running.start()
        with begin("true") as second:
            assert second.receive().kind == 0
            assert os.waitstatus_to_exitcode(second.wait()) == 1
        assert len(status_lines(run_dir)) == 1
        assert alive(running.child)


# -- who dies when ------------------------------------------------------------------------


@pytest.mark.parametrize("point", [1, 2, 3])
def test_engine_death_before_the_commit_point_ends_everything(begin, run_dir, point):
    with begin("true", cleaner=["/bin/false"]) as running:
        for _ in range(point - 1):
            while running.receive().kind != protocol.SYNC:
                pass
            running.send(protocol.GO)
        while running.receive().kind != protocol.SYNC:
            pass
        assert running.events[-1].a == point
        running.control.close()
        assert os.waitstatus_to_exitcode(running.wait()) == 1
        assert not alive(running.child)
        assert status_lines(run_dir) == []


def test_container_outlives_the_engine_and_is_cleaned_up(begin, run_dir, tmp_path):
    witness = tmp_path / "cleaner"
    script = 'exec >"$2"; echo "$0 $1 $CTR_TEST $(pwd)"; ls /proc/$$/fd; cat'
    cleaner = ["/bin/sh", "-c", script, "me", "arg", os.fspath(witness)]
    with begin(
        "sh", "-c", "cat; exit 4", with_stdin=True, cleaner=cleaner, env={"CTR_TEST": "1"}
    ) as running:
        assert running.start()
        running.control.close()
        time.sleep(0.05)
        assert alive(running.child)
        assert running.communicate(b"still here")[0] == b"still here"
        assert os.waitstatus_to_exitcode(running.wait()) == 0  # of the cleaner, in its place
    assert status_lines(run_dir)[1][:2] == ["exited", str(4 << 8)]
    assert witness.read_text() == "me arg 1 /\n0\n1\n2\n"


def test_engine_death_before_done_runs_the_cleaner(begin, tmp_path):
    witness = tmp_path / "cleaner"
    with begin("true", cleaner=["/bin/touch", os.fspath(witness)]) as running:
        assert running.start()
        while running.receive().kind != protocol.EXITED:
            pass
        running.control.close()
        running.wait()
    assert witness.exists()


def test_done_spares_the_cleaner(begin, tmp_path):
    witness = tmp_path / "cleaner"
    with begin("true", cleaner=["/bin/touch", os.fspath(witness)]) as running:
        assert running.start()
        assert running.finish().exit_code == 0
    assert not witness.exists()


@INITS
def test_container_dies_with_its_supervisor(begin, last):
    with begin("sh", "-c", WAIT, last=last) as running:
        assert running.start()
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        wait_gone(running.child)


@pytest.mark.parametrize("point", [1, 2, 3])
def test_child_dies_with_its_supervisor_during_the_launch(begin, point):
    with begin("true") as running:
        for number in range(1, point + 1):
            while running.receive().kind != protocol.SYNC:
                pass
            if number < point:
                running.send(protocol.GO)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        wait_gone(running.child)


def test_supervisor_ignores_signals_meant_to_end_it(begin):
    with begin("sh", "-c", WAIT) as running:
        assert running.start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            os.kill(running.pid, number)
        running.send(protocol.SIGNAL, signal.SIGKILL)
        assert running.finish().exit_code == 137


# -- streams ------------------------------------------------------------------------------


def test_output_arrives_whole(run):
    script = f"head -c {10 * MEGABYTE} /dev/zero | tr '\\0' x; head -c {MEGABYTE} /dev/zero >&2"
    result = run("sh", "-c", script, setup=[ZERO])
    assert len(result.stdout) == 10 * MEGABYTE
    assert result.stdout.count(b"x") == 10 * MEGABYTE
    assert result.stderr == bytes(MEGABYTE)


def test_input_arrives_whole(run):
    data = os.urandom(5 * MEGABYTE)
    result = run("cat", stdin=data)
    assert result.stdout == data


def test_no_input_is_end_of_file(run):
    assert run("cat").exit_code == 0


def test_container_that_reads_no_input_ends(run):
    result = run("sh", "-c", "exec <&-; echo done", stdin=bytes(MEGABYTE))
    assert result.stdout == b"done\n"


def test_end_of_output_reaches_the_client_while_the_container_lives(begin):
    with begin("sh", "-c", "exec >&-; sleep 60") as running:
        assert running.start()
        assert os.read(running.stdout, 1) == b""
        assert alive(running.child)


def test_output_of_a_client_that_left_is_dropped(begin):
    script = f"head -c {4 * MEGABYTE} /dev/zero; echo fine >&2"
    with begin("sh", "-c", script, setup=[ZERO]) as running:
        running.close("stdout")
        assert running.start()
        assert read_until(running.stderr, b"fine\n")
        running.close("stderr")
        while running.receive().kind != protocol.EXITED:
            pass
        assert running.events[-1].a == 0


def test_client_that_leaves_midway(begin):
    with begin("yes") as running:
        assert running.start()
        assert os.read(running.stdout, 2) == b"y\n"
        running.close("stdout")
        time.sleep(0.05)
        assert alive(running.child)
        running.send(protocol.SIGNAL, signal.SIGKILL)
        while running.receive().kind != protocol.EXITED:
            pass


def test_slow_client_makes_the_container_wait(begin):
    with begin("sh", "-c", "yes") as running:
        assert running.start()
        time.sleep(0.1)
        with open(f"/proc/{running.pid}/stat", encoding="ascii") as file:
            before = file.read().rpartition(")")[2].split()[11:13]
        time.sleep(0.3)
        with open(f"/proc/{running.pid}/stat", encoding="ascii") as file:
            assert file.read().rpartition(")")[2].split()[11:13] == before  # it does not spin
        running.send(protocol.SIGNAL, signal.SIGKILL)
        assert set(running.finish().stdout) == set(b"y\n")


def test_leftover_writer_does_not_hold_the_exit_up(begin):
    """Without a PID namespace of its own, the container's children outlive its PID 1."""
    script = "sleep 60 & echo $!; yes & echo $! >&2"
    with begin("sh", "-c", script, flags=FRESH & ~NEWPID, setup=[NULL]) as running:
        assert running.start()
        result = running.finish()
        assert result.exit_code == 0
        for pid in (int(result.stdout.split()[0]), int(result.stderr.split()[0])):
            with contextlib.suppress(ProcessLookupError):  # it wrote to the closed pipe
                os.kill(pid, signal.SIGKILL)


def test_appended_file_as_output(compiled, root, run_dir, tmp_path):
    """splice(2) refuses a file opened with O_APPEND, as a shell's ``>>`` does."""
    target = tmp_path / "log"
    target.write_bytes(b"before\n")
    with open(target, "ab") as log, open(os.devnull, "r+b") as null:
        program_fd = os.memfd_create("program")
        os.write(program_fd, encoding.encode(container(root, "sh", "-c", "echo after; seq 9999")))
        run_fd = os.open(run_dir, os.O_RDONLY)
        stdio = (null.fileno(), log.fileno(), null.fileno())
        pid, control = compiled.spawn("x", program_fd, run_fd, stdio, (), {})
        os.close(program_fd)
        os.close(run_fd)
    while data := control.recv(1024):
        kind = protocol.MESSAGE.unpack_from(data)[0]
        if kind == protocol.SYNC:
            control.send(protocol.MESSAGE.pack(protocol.GO, 0, 0))
        elif kind == protocol.EXITED:
            control.send(protocol.MESSAGE.pack(protocol.DONE, 0, 0))
    control.close()
    os.waitpid(pid, 0)
    lines = target.read_bytes().splitlines()
    assert lines[:2] == [b"before", b"after"]
    assert lines[2:] == [b"%d" % number for number in range(1, 10000)]
