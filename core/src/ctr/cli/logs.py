"""The command line's log handlers; the library only ever asks for loggers."""

from __future__ import annotations

import json
import logging


class TextFormatter(logging.Formatter):
    """``ctr: warning: MESSAGE``, as the command line's own lines look."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"ctr: {record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(*, debug: bool, log_format: str) -> None:
    """Send the log to standard error: warnings, and with ``debug`` every step."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.WARNING)
