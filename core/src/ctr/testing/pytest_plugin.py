"""The pytest plugin that ctr-core installs, for ctr's own tests and those of other drivers.

Markers:

``root``
    needs root and the real kernel.  When one is selected, the test process moves into a
    network and mount namespace of its own before the first test, so that no test writes the
    host's; after each one, whatever it left behind fails it (``ctr.testing.leaks``).
``driver("KIND:NAME", …)``
    exercises these drivers; skipped, with the probe's reason, where one can't work.
``matrix``
    exercises the drivers that CTR_STORAGE, CTR_NETWORK_DRIVER and CTR_CGROUPS choose.

With ``--ctr-require KIND:NAME`` (or CTR_REQUIRE, separated by commas) a skipped test of that
driver is a failure, unless for the sake of another driver that is not required, and so is a
session in which no test of it passed.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

# pytest.skip.Exception, under the name by which type checkers know it.
from _pytest.outcomes import Skipped

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

MARKERS = (
    "root: needs root and the real kernel; runs in namespaces of its own",
    "driver(*names): exercises the drivers KIND:NAME",
    "matrix: exercises the drivers that the environment chooses",
)
MATRIX = {"CTR_STORAGE": "storage", "CTR_NETWORK_DRIVER": "network", "CTR_CGROUPS": "cgroup"}

_required = pytest.StashKey[dict[str, bool]]()
#: On an item that was skipped: whether for the sake of a driver that is not required.
_excused = pytest.StashKey[bool]()


class Undeclared(Skipped):
    """Skips a law of an ability that the driver doesn't declare, required or not."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("ctr").addoption(
        "--ctr-require",
        action="append",
        default=[],
        metavar="KIND:NAME",
        help="a skipped test of this driver is a failure",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    names = [*config.getoption("--ctr-require"), *os.environ.get("CTR_REQUIRE", "").split(",")]
    # True once a test of it passed.
    config.stash[_required] = {name.strip(): False for name in names if name.strip()}


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if any(item.get_closest_marker("root") for item in session.items):
        if os.geteuid():
            raise pytest.UsageError(
                'tests marked root need root; leave them out with -m "not root"'
            )
        from ctr.testing.isolation import isolate

        isolate()


def pytest_runtest_setup(item: pytest.Item) -> None:
    folder = item.config.getoption("basetemp") or tempfile.gettempdir()
    required = item.config.stash[_required]
    for driver in sorted(_drivers(item), key=lambda name: name not in required):
        reason = _unusable(driver, os.path.abspath(folder))
        if reason:
            item.stash[_excused] = driver not in required
            pytest.skip(f"{driver}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    required = item.config.stash[_required]
    for driver in _drivers(item):
        if driver not in required:
            continue
        undeclared = call.excinfo is not None and call.excinfo.errisinstance(Undeclared)
        excused = undeclared or item.stash.get(_excused, False)
        if report.skipped and not excused and not hasattr(report, "wasxfail"):
            report.outcome = "failed"
            report.longrepr = f"skipped, but {driver} is required: {report.longrepr}"
        elif report.when == "call" and report.passed:
            required[driver] = True
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _untested(session.config) and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for driver in _untested(config):
        terminalreporter.write_line(f"required driver {driver}: no test of it passed", red=True)


@pytest.fixture(autouse=True)
def ctr_leak_check(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fail a ``root`` test that leaves something behind."""
    if request.node.get_closest_marker("root") is None:
        yield
        return
    from ctr.testing.leaks import Snapshot, leaks

    folder = str(tmp_path_factory.getbasetemp())
    before = Snapshot.take(folder)
    yield
    found = leaks(before, folder)
    if found:
        pytest.fail("left behind:\n  " + "\n  ".join(found), pytrace=False)


def _drivers(item: pytest.Item) -> list[str]:
    """The drivers that a test exercises, as KIND:NAME."""
    names = [str(name) for marker in item.iter_markers("driver") for name in marker.args]
    if item.get_closest_marker("matrix"):
        names += [
            f"{kind}:{os.environ[key]}" for key, kind in MATRIX.items() if os.environ.get(key)
        ]
    return names


def _unusable(driver: str, folder: str) -> str:
    """Why a driver can't work here; empty when it can."""
    from ctr.config import load
    from ctr.errors import NotFoundError
    from ctr.plugins import PluginHost

    kind, _, name = driver.partition(":")
    host = PluginHost()
    # A storage driver is asked about the file system that tests keep their roots on.
    settings = load({"root": folder}, os.environ)
    try:
        offer = host.driver(kind, name)
    except NotFoundError as error:
        return error.message
    probe = host.probe(offer, settings)
    return "" if probe.ok else probe.reason or "its probe says no"


def _untested(config: pytest.Config) -> list[str]:
    """The required drivers of which no test passed; a controller of xdist can't know."""
    if config.getoption("numprocesses", default=None):
        return []
    return [driver for driver, passed in config.stash[_required].items() if not passed]
