"""A line of JSON for each log record, by the standard library's means: what peers use where ours has its own."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class _JsonLines(logging.Formatter):
    def __init__(self, *fields: str) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **{name: getattr(record, name, None) for name in self._fields},
        }
        return json.dumps(line, ensure_ascii=False)


def logger(*fields: str) -> logging.Logger:
    """Return a logger that writes such lines to stdout, with these fields of `extra`."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines(*fields))
    found = logging.getLogger("bench")
    found.addHandler(handler)
    found.setLevel(logging.INFO)
    found.propagate = False
    return found
