"""Reads payloads from files: one for each line of JSON lines, or for each row of CSV with a header."""

from __future__ import annotations

import csv
import itertools
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from runner.config.diagnostics import display_path
from runner.errors import BadRecord, PublishFailed
from runner.pipeline.body_encoding import WIDE_FILE, is_wide, without_mark
from runner.pipeline.codec import Encode, JsonText, guess_payload
from runner.pipeline.data_errors import json_error

MAX_LINE_BYTES = 16 * 1024 * 1024
"""The maximum length of a line, a row or a field: the maximum size of a body."""

_DELIMITERS = ",;\t"

_FIELD_LIMIT = threading.Lock()
"""Guards the field limit of `csv`, which is global: it is raised for one row at a time."""


def read_records(path: str, checks: Sequence[Encode] = ()) -> Iterator[Any]:
    """Yield the payloads of a file, lazily: a dict of texts for each row of a `.csv` file, else the JSON of each line.

    `-` is standard input, as JSON lines. Empty lines are skipped. `checks` are the encoders of the destinations, which
    check the schemas. Raises BadRecord and OSError.
    """
    for place, payload in _records(path):
        try:
            for check in checks:
                check(payload)
        except PublishFailed as failure:
            raise BadRecord(f"{place}: {failure}") from failure
        yield payload


def _records(path: str) -> Iterator[tuple[str, Any]]:
    """Yield each payload with its file and line."""
    if path == "-":
        yield from _json_lines(sys.stdin.buffer, "standard input")
        return
    name = display_path(path)
    with Path(path).open("rb") as file:
        if path.lower().endswith(".csv"):
            yield from _csv_rows(_lines(file, name), name)
        else:
            yield from _json_lines(file, name)


def _lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of a file with their line breaks (`\\n`, `\\r\\n` or `\\r`), without a byte order mark."""
    number = 0
    while read := file.readline(MAX_LINE_BYTES + len(b"\r\n") + 1):
        if len(read.rstrip(b"\r\n")) > MAX_LINE_BYTES:
            raise BadRecord(f"{name}:{number + 1}: the line has more than {MAX_LINE_BYTES} bytes")
        if number == 0 and is_wide(read):
            raise BadRecord(f"{name}: {WIDE_FILE}")
        for line in (read if number else without_mark(read)).splitlines(keepends=True):
            number += 1
            yield line


def _json_lines(file: IO[bytes], name: str) -> Iterator[tuple[str, JsonText]]:
    for number, line in enumerate(_lines(file, name), 1):
        body = line.strip()
        if not body:
            continue
        payload = guess_payload(body)
        if not isinstance(payload, JsonText):
            why = json_error(body)
            if number == 1 and body in (b"[", b"{"):
                what = "a list" if body == b"[" else "an object"
                why = f"{what} over several lines; write each value on a line of its own, as `jq -c` does"
            raise BadRecord(f"{name}:{number}: not JSON: {why}")
        yield f"{name}:{number}", payload


def _csv_rows(lines: Iterator[bytes], name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a dict for each row. Empty lines are skipped, also before the header."""
    skipped = 0
    for first in lines:
        if first.strip():
            break
        skipped += 1
    else:
        return
    rows = _rows(_texts(itertools.chain([first], lines), name, skipped), _delimiter(first), name, skipped)
    place, header = next(rows)
    for index, column in enumerate(header):
        if not column.strip() or column in header[:index]:
            wrong = f'the column "{column}" is there twice' if column.strip() else f"column {index + 1} has no name"
            raise BadRecord(f"{place}: {wrong}: each needs a name of its own in the first line")
    for place, row in rows:
        if len(row) != len(header):
            raise BadRecord(f"{place}: {len(row)} fields, the header has {len(header)}")
        yield place, dict(zip(header, row, strict=True))


def _rows(texts: Iterator[str], delimiter: str, name: str, skipped: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows that are not empty, each with its first line."""
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    while True:
        place = f"{name}:{skipped + reader.line_num + 1}"
        try:
            row = _next_row(reader)
        except csv.Error as error:
            raise BadRecord(f"{place}: {error}") from error
        if row is None:
            return
        if row:
            yield place, row


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    with _FIELD_LIMIT:
        before = csv.field_size_limit(MAX_LINE_BYTES)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(before)


def _delimiter(header: bytes) -> str:
    """Return the delimiter: a comma, or a semicolon or tab if the header has no commas."""
    for delimiter in _DELIMITERS:
        try:
            columns = next(csv.reader([header.decode(errors="replace")], delimiter=delimiter))
        except csv.Error:
            break
        if len(columns) > 1:
            return delimiter
    return _DELIMITERS[0]


def _texts(lines: Iterable[bytes], name: str, skipped: int) -> Iterator[str]:
    """Yield lines as text. Raises BadRecord for a line that is not UTF-8."""
    for number, line in enumerate(lines, skipped + 1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise BadRecord(
                f"{name}:{number}: not UTF-8: save it as UTF-8, as `iconv -f cp1252 -t utf-8` does"
            ) from error
