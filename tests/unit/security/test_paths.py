"""Masked and read-only paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.security.paths import MASKED, READONLY, masked

if TYPE_CHECKING:
    from pathlib import Path


def test_lists_are_mobys() -> None:
    assert len(set(MASKED)) == 12
    assert len(set(READONLY)) == 5
    # CVE-2017-16539, GHSA-6fw5-f8r9-fgfm, GHSA-jq35-85cj-fj4p
    assert {"/proc/scsi", "/proc/interrupts", "/sys/devices/virtual/powercap"} <= set(MASKED)


def test_thermal_throttle_of_each_cpu(tmp_path: Path) -> None:
    for name in ("cpu0", "cpu2", "cpu10", "cpufreq", "cpuidle"):
        (tmp_path / name / "thermal_throttle").mkdir(parents=True)
    (tmp_path / "cpu1").mkdir()
    added = masked(str(tmp_path))[len(MASKED) :]
    assert added == tuple(f"{tmp_path}/cpu{n}/thermal_throttle" for n in (0, 2, 10))


def test_without_cpus(tmp_path: Path) -> None:
    assert masked(str(tmp_path / "none")) == MASKED
