"""Where each millisecond of a command went (``ctr run --timing``)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctr.program import Operation

_BAR = 40  # columns


class Timeline:
    """Marks, each the end of a phase that began at the mark before it."""

    def __init__(self) -> None:
        # The interpreter's own start and the imports so far, as CPU time: /proc has the
        # start of a process only in hundredths of a second.
        self.before_ns = time.process_time_ns()
        self.watching = False
        self._last = self._operation_last = time.perf_counter_ns()
        self._imported = self._depth = 0
        self._by = ""
        #: Phase, plugin, nanoseconds, nanoseconds of it spent importing.
        self.marks: list[tuple[str, str, int, int]] = []
        #: Nanoseconds of the launch program by the plugin that asked for the operations.
        self.operations: dict[str, int] = {}

    def watch(self) -> None:
        """Tell imports from work, in the whole process: for a command that will print it."""
        from importlib.machinery import ExtensionFileLoader, SourceFileLoader

        self.watching = True
        for loader in (SourceFileLoader, ExtensionFileLoader):
            for name in ("create_module", "exec_module"):
                setattr(loader, name, self._timed(getattr(loader, name)))

    def _timed(self, load: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            self._depth += 1
            start = time.perf_counter_ns()
            try:
                return load(*args)
            finally:
                self._depth -= 1
                if not self._depth:  # those that a module imports are in its own time
                    self._imported += time.perf_counter_ns() - start

        return timed

    def mark(self, phase: str, plugin: str = "core") -> None:
        """End the phase ``phase`` now; ``plugin`` did most of it."""
        now = time.perf_counter_ns()
        self.marks.append((phase, plugin, now - self._last, self._imported))
        self._last, self._imported = now, 0

    def operation(self, operation: Operation | None) -> None:
        """End the operation that ran up to now; ``operation`` begins (None: the last has run)."""
        now = time.perf_counter_ns()
        if self._by:
            spent = self.operations.get(self._by, 0)
            self.operations[self._by] = spent + now - self._operation_last
        self._operation_last, self._by = now, operation.by if operation else ""

    def waterfall(self) -> list[str]:
        """The phases as lines of text, one bar a phase; then the program by plugin."""
        rows = [("interpreter, imports (CPU)", "", self.before_ns, self.before_ns), *self.marks]
        total = sum(duration for _, _, duration, _ in rows)
        lines = [f"{'PHASE':<28}{'PLUGIN':<17}{'MS':>8}{'IMPORTING':>11}"]
        start = 0
        for phase, plugin, duration, importing in rows:
            bar = " " * (start * _BAR // total) + "█" * max(1, duration * _BAR // total)
            times = f"{duration / 1e6:8.2f}{importing / 1e6:11.2f}"
            lines.append(f"{phase:<28}{plugin:<17}{times}  {bar}")
            start += duration
        importing = sum(importing for *_, importing in rows)
        lines.append(f"{'total':<45}{total / 1e6:8.2f}{importing / 1e6:11.2f}")
        told = [f"{plugin} {spent / 1e6:.2f}" for plugin, spent in self.operations.items()]
        return [*lines, f"launch program, in ms by plugin: {', '.join(told)}"]
