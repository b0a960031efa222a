"""Paths of /proc and /sys that a container must not see or not write.

The lists are those of moby v28.5.2 (daemon/pkg/oci/defaults.go).  A path that the machine
lacks is left out by the launcher.
"""

from __future__ import annotations

#: Covered: files by /dev/null, folders by an empty read-only tmpfs.
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",  # keystroke timing: GHSA-6fw5-f8r9-fgfm
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",  # CVE-2017-16539
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",  # power side channel: GHSA-jq35-85cj-fj4p
    "/sys/firmware",
)

#: Readable, not writable.
READONLY = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

_CPUS = "/sys/devices/system/cpu"


def masked(cpus: str = _CPUS) -> tuple[str, ...]:
    """``MASKED`` and the thermal_throttle folder of each CPU of this machine."""
    import os

    try:
        names = os.listdir(cpus)
    except OSError:
        return MASKED
    numbers = sorted(int(name[3:]) for name in names if name[:3] == "cpu" and name[3:].isdigit())
    return MASKED + tuple(
        path for number in numbers if os.path.exists(path := f"{cpus}/cpu{number}/thermal_throttle")
    )
