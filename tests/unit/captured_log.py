"""Log lines written into memory, for tests."""

from __future__ import annotations

import io
import json
from typing import Any

from runner import log


def configured(**options: Any) -> io.StringIO:
    """Configure the log, and return what its JSON lines are written to."""
    out = io.StringIO()
    log.configure(format="json", stream=out, **options)
    return out


def parsed(out: io.StringIO) -> list[dict[str, Any]]:
    """Return the lines."""
    return [json.loads(line) for line in out.getvalue().splitlines()]
