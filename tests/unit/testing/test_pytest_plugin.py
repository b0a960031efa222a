"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os

import pytest

from ctr.testing import pytest_plugin

pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester, monkeypatch):
    monkeypatch.delenv("CTR_REQUIRE", raising=False)

    def run(source, *arguments):
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess("-p", "no:randomly", *arguments)

    return run


MISSING = """
    import pytest

    @pytest.mark.driver("storage:missing")
    def test_it(): pass
"""


def test_a_test_of_a_missing_driver_is_skipped(run):
    result = run(MISSING, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*storage:missing: cannot find storage driver*"])


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_skip_of_a_required_driver_is_a_failure(run, monkeypatch, way):
    if way == "option":
        result = run(MISSING, "--ctr-require", "storage:missing")
    else:
        monkeypatch.setenv("CTR_REQUIRE", "storage:other, storage:missing")
        result = run(MISSING)
    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*skipped, but storage:missing is required*"])


def test_a_skip_inside_a_test_of_a_required_driver_is_a_failure(run, monkeypatch):
    monkeypatch.setattr(pytest_plugin, "_unusable", lambda driver, folder: "")
    source = """
        import pytest
        @pytest.mark.driver("storage:missing")
        def test_it(): pytest.skip("not today")
    """
    run(source, "--ctr-require=storage:missing").assert_outcomes(failed=1)


def test_an_ability_that_a_required_driver_does_not_declare_is_skipped(run, monkeypatch):
    monkeypatch.setattr(pytest_plugin, "_unusable", lambda driver, folder: "")
    source = """
        import pytest
        from ctr.testing.pytest_plugin import Undeclared

        pytestmark = pytest.mark.driver("storage:missing")

        def test_it(): raise Undeclared("it does not declare it")
        def test_other(): pass
    """
    run(source, "--ctr-require=storage:missing").assert_outcomes(passed=1, skipped=1)


@pytest.mark.parametrize(
    ("unusable", "outcomes"),
    [("namespace:time", {"passed": 1, "skipped": 1}), ("storage:missing", {"errors": 2})],
)
def test_a_skip_for_the_sake_of_a_driver_that_is_not_required(run, monkeypatch, unusable, outcomes):
    """It is a skip; where the required one can't work either, it is a failure."""
    monkeypatch.setattr(
        pytest_plugin, "_unusable", lambda driver, folder: "no" if driver == unusable else ""
    )
    source = """
        import pytest
        pytestmark = pytest.mark.driver("storage:missing")

        @pytest.mark.driver("namespace:time")
        def test_it(): pass
        def test_other(): pass
    """
    run(source, "--ctr-require=storage:missing").assert_outcomes(**outcomes)


def test_a_required_driver_needs_a_test_that_passes(run):
    result = run("def test_other(): pass", "--ctr-require=storage:overlay")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["required driver storage:overlay: no test of it passed"])


def test_matrix_means_the_drivers_of_the_environment(run, monkeypatch):
    monkeypatch.setenv("CTR_STORAGE", "missing")
    result = run("import pytest\n@pytest.mark.matrix\ndef test_it(): pass", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*storage:missing: *"])


def test_root_tests_of_another_user_are_an_error(run, monkeypatch):
    """Not skipped: a run without them must be asked for."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    source = """
        import pytest

        @pytest.mark.root
        def test_it(): pass
        def test_other(): pass
    """
    result = run(source)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(['*-m "not root"*'])
    run(source, "-m", "not root").assert_outcomes(passed=1, deselected=1)
