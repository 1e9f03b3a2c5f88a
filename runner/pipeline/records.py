"""Turns a file into payloads, one for each line: JSON lines, or CSV with a header."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from runner.pipeline.payload import JsonText, as_payload

MAX_LINE_BYTES = 16 * 1024 * 1024


class BadRecord(Exception):
    """A line of the file is not what its kind of file has; says which line."""


def read_records(path: str) -> Iterator[Any]:
    """Yield the payloads of a file, lazily: of `.csv` a dict of texts for each row, else the JSON of each line.

    `-` is standard input, as JSON lines. Empty lines are passed over. Raises BadRecord, OSError, UnicodeDecodeError.
    """
    if path == "-":
        yield from _json_lines(sys.stdin.buffer, "standard input")
    elif path.lower().endswith(".csv"):
        with Path(path).open(encoding="utf-8-sig", newline="") as rows:
            yield from _csv_rows(rows, path)
    else:
        with Path(path).open("rb") as lines:
            yield from _json_lines(lines, path)


def _json_lines(lines: IO[bytes], name: str) -> Iterator[JsonText]:
    number = 0
    while line := lines.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise BadRecord(f"{name}:{number}: the line has more than {MAX_LINE_BYTES} bytes")
        body = line.strip()
        if not body:
            continue
        payload = as_payload(body)
        if not isinstance(payload, JsonText):
            raise BadRecord(f"{name}:{number}: not JSON")
        yield payload


def _csv_rows(rows: IO[str], name: str) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(rows, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise BadRecord(
                    f"{name}:{reader.line_num}: {_count(row)} fields, the header has {len(row) - (None in row)}"
                )
            yield row
    except csv.Error as error:
        raise BadRecord(f"{name}:{reader.line_num}: {error}") from error


def _count(row: dict[Any, Any]) -> int:
    extra = row.get(None) or []
    return sum(value is not None for name, value in row.items() if name is not None) + len(extra)
