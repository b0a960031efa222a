"""Where each millisecond of a command went (``ctr run --timing``)."""

from __future__ import annotations

import time


class Timeline:
    """Marks, each the end of a phase that began at the mark before it."""

    def __init__(self) -> None:
        # The interpreter's own start and the imports so far, as CPU time: /proc has the
        # start of a process only in hundredths of a second.
        self.before_ns = time.process_time_ns()
        self._last = time.perf_counter_ns()
        self.marks: list[tuple[str, int]] = []

    def mark(self, phase: str) -> None:
        """End the phase ``phase`` now; durations are nanoseconds."""
        now = time.perf_counter_ns()
        self.marks.append((phase, now - self._last))
        self._last = now

    def waterfall(self) -> list[str]:
        """The phases as lines of text, one bar a phase."""
        rows = [("interpreter, imports (CPU)", self.before_ns), *self.marks]
        total = sum(duration for _, duration in rows)
        width = 40
        lines, start = [], 0
        for phase, duration in rows:
            left = start * width // total
            bar = max(1, duration * width // total)
            lines.append(f"{phase:<28}{duration / 1e6:8.2f} ms  {' ' * left}{'█' * bar}")
            start += duration
        return [*lines, f"{'total':<28}{total / 1e6:8.2f} ms"]
