"""The Python launcher as a supervisor keeps the laws of the compiled one: the same tests."""

from __future__ import annotations

import stat

import pytest

from ctr.launcher import protocol, reference
from ctr.operations import Init, MakeNode, Setns
from ctr.program import Phase

from . import test_native_lifecycle as laws
from .harness import FRESH, NEWPID, wait_gone
from .test_native_lifecycle import (  # noqa: F401  (collected here once more)
    test_appended_file_as_output,
    test_client_that_leaves_midway,
    test_container_outlives_the_engine_and_is_cleaned_up,
    test_container_that_reads_no_input_ends,
    test_death_by_signal_passes_through,
    test_done_spares_the_cleaner,
    test_end_of_output_reaches_the_client_while_the_container_lives,
    test_engine_death_before_done_runs_the_cleaner,
    test_engine_death_before_the_commit_point_ends_everything,
    test_every_operation_is_traced_in_order,
    test_failing_operation_is_named,
    test_input_arrives_whole,
    test_messages_of_a_whole_life,
    test_no_input_is_end_of_file,
    test_oom_kill_is_recorded,
    test_output_arrives_whole,
    test_output_of_a_client_that_left_is_dropped,
    test_second_supervisor_is_refused,
    test_slow_client_makes_the_container_wait,
    test_start_time_is_the_kernels,
    test_supervisor_ignores_signals_meant_to_end_it,
)

pytestmark = pytest.mark.root


@pytest.fixture
def compiled():
    """The launcher under test, in the place of the compiled one."""
    return reference


@pytest.mark.parametrize("status", [0, 1, 255])
def test_exit_status_passes_through(run, status):
    laws.test_exit_status_passes_through(run, status, [])


def test_signal_reaches_the_command(begin):
    laws.test_signal_reaches_the_command(begin, [])


def test_death_before_the_exec_is_no_start(run, run_dir):
    laws.test_death_before_the_exec_is_no_start(run, run_dir, [])


def test_container_dies_with_its_supervisor(begin):
    laws.test_container_dies_with_its_supervisor(begin, [])


@pytest.mark.parametrize("operation", [Init(), Setns(0, 0)], ids=["Init", "Setns"])
def test_what_needs_the_compiled_launcher_is_refused_before_anything_is_done(run, operation):
    part = {"last": [operation]} if operation.phase is Phase.LAST else {"prepare": [operation]}
    result = run("true", **part)
    assert result.kinds == [protocol.FAILED, 0]
    assert result.failure.a == -1
    assert "only the compiled one can" in result.failure.text


def test_a_leftover_writer_does_not_hold_the_exit_up(begin):
    null = MakeNode("/dev/null", stat.S_IFCHR | 0o666, 1, 3)  # what a job of the shell reads
    script = "yes & echo $! >&2"
    with begin("sh", "-c", script, flags=FRESH & ~NEWPID, setup=[null]) as running:
        assert running.start()
        result = running.finish()
        assert result.exit_code == 0
        assert result.stdout.startswith(b"y\n") or not result.stdout
        wait_gone(int(result.stderr))  # the pipe that it writes to is closed
