"""Turns a file into payloads, one for each line: JSON lines, or CSV with a header."""

from __future__ import annotations

import codecs
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from runner.errors import PublishFailed
from runner.pipeline.payload import Encode, JsonText, as_payload

MAX_LINE_BYTES = 16 * 1024 * 1024


class BadRecord(Exception):
    """A line of the file is not what its kind of file has, or does not fit where it is to go; says which line."""


def read_records(path: str, checks: Sequence[Encode] = ()) -> Iterator[Any]:
    """Yield the payloads of a file, lazily: of `.csv` a dict of texts for each row, else the JSON of each line.

    `-` is standard input, as JSON lines. Empty lines are passed over. `checks` are the encoders of where the payloads
    go, which know the schemas. Raises BadRecord, OSError.
    """
    for place, payload in _records(path):
        try:
            for check in checks:
                check(payload)
        except PublishFailed as failure:
            raise BadRecord(f"{place}: {failure}") from failure
        yield payload


def _records(path: str) -> Iterator[tuple[str, Any]]:
    """Yield each payload with the file and the line that it comes from."""
    if path == "-":
        yield from _json_lines(sys.stdin.buffer, "standard input")
    elif path.lower().endswith(".csv"):
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as rows:
            yield from _csv_rows(rows, path)
    else:
        with Path(path).open("rb") as lines:
            yield from _json_lines(lines, path)


def _json_lines(lines: IO[bytes], name: str) -> Iterator[tuple[str, JsonText]]:
    number = 0
    while line := lines.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise BadRecord(f"{name}:{number}: the line has more than {MAX_LINE_BYTES} bytes")
        body = line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").strip()
        if not body:
            continue
        payload = as_payload(body)
        if not isinstance(payload, JsonText):
            raise BadRecord(f"{name}:{number}: not JSON")
        yield f"{name}:{number}", payload


def _csv_rows(rows: IO[str], name: str) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.DictReader(_utf8_lines(rows, name), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise BadRecord(
                    f"{name}:{reader.line_num}: {_count(row)} fields, the header has {len(row) - (None in row)}"
                )
            yield f"{name}:{reader.line_num}", row
    except csv.Error as error:
        raise BadRecord(f"{name}:{reader.line_num}: {error}") from error


def _utf8_lines(rows: Iterable[str], name: str) -> Iterator[str]:
    """Yield lines in which bytes that are no UTF-8 were escaped; raises BadRecord at the first that has some."""
    for number, line in enumerate(rows, 1):
        try:
            line.encode()
        except UnicodeEncodeError as error:
            raise BadRecord(f"{name}:{number}: not UTF-8") from error
        yield line


def _count(row: dict[Any, Any]) -> int:
    extra = row.get(None) or []
    return sum(value is not None for name, value in row.items() if name is not None) + len(extra)
