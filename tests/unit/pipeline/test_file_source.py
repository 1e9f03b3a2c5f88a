"""Files become payloads, line by line."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.errors import BadRecord
from runner.pipeline.file_source import MAX_LINE_BYTES, read_records


def test_json_lines_are_published_byte_for_byte(tmp_path: Path) -> None:
    """Empty lines are passed over."""
    path = tmp_path / "orders.jsonl"
    path.write_bytes('{"id": 1,  "name": "订单"}\n\n  [2]  \n3'.encode())
    assert list(read_records(str(path))) == ['{"id": 1,  "name": "订单"}'.encode(), b"[2]", b"3"]


def test_rows_of_a_csv_file_are_dictionaries_of_text(tmp_path: Path) -> None:
    """By the header's names; a byte order mark and quoted line breaks are understood."""
    path = tmp_path / "orders.csv"
    path.write_text('\ufeffid,name\n1,"a\nb"\n2,订单\n', "utf-8")
    assert list(read_records(str(path))) == [{"id": "1", "name": "a\nb"}, {"id": "2", "name": "订单"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"id": 1}\nnot json\n', "a.jsonl:2: not JSON"),
        ("a.csv", "a,b\n1,2\n3\n", "a.csv:3: 1 fields, the header has 2"),
        ("a.csv", "a,b\n1,2,3\n", "a.csv:2: 3 fields, the header has 2"),
        ("a.csv", "\n\na,b\n\n1\n", "a.csv:5: 1 fields, the header has 2"),
        ("a.csv", 'a,b\n1,"x\ny"\n3\n', "a.csv:4: 1 fields, the header has 2"),
        ("a.csv", 'a,b\n1,2\n3,"x\ny\n', "a.csv:3: unexpected end of data"),
        ("a.csv", "id,name,name\n", 'a.csv:1: the column "name" is there twice: each needs a name of its own'),
        ("a.csv", "\nid,,name\n", "a.csv:2: column 2 has no name: each needs a name of its own"),
        ("a.csv", "id,name,\n", "a.csv:1: column 3 has no name: each needs a name of its own"),
        ("a.csv", "id; \n", "a.csv:1: column 2 has no name: each needs a name of its own"),
        ("A.CSV", "sep=;\nid;name\n", "A.CSV:1: column 2 has no name: each needs a name of its own"),
        ("a.jsonl", '{"id": 1}\r{"id": 2}\rbad', "a.jsonl:3: not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    """With file and line, so that it can be mended."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadRecord) as caught:
        list(read_records(str(path)))
    assert message in str(caught.value)


def test_a_large_file_is_read_as_it_is_needed(tmp_path: Path) -> None:
    """The first record comes before the rest is read: a bad line at the end does not matter yet."""
    path = tmp_path / "a.jsonl"
    path.write_text("1\nbad\n")
    assert next(iter(read_records(str(path)))) == b"1"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "lines", "records"),
    [
        ("a.csv", ["", "id,name", "1,Ann", "", "2,Bo"], [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Bo"}]),
        ("a.csv", ["id;name", "1;a,b"], [{"id": "1", "name": "a,b"}]),
        ("a.csv", ["id\tname", "1\ta;b"], [{"id": "1", "name": "a;b"}]),
        ("a.csv", ["id", "1;2"], [{"id": "1;2"}]),
        ("a.csv", ['"id;x"', "1"], [{"id;x": "1"}]),
        ("a.csv", ["id,name"], []),
        ("a.csv", ["", ""], []),
        ("a.jsonl", ['{"id": 1}', "", " 2 "], [b'{"id": 1}', b"2"]),
    ],
)
def test_files_of_every_program_are_read(
    tmp_path: Path, end: str, last: bool, mark: str, name: str, lines: list[str], records: list[object]
) -> None:
    """Whatever ends their lines, and with a byte order mark or without; empty lines are passed over."""
    path = tmp_path / name
    path.write_bytes((mark + end.join(lines) + (end if last else "")).encode())
    assert list(read_records(str(path))) == records


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_file_in_another_encoding_is_named(tmp_path: Path, name: str, encoding: str) -> None:
    """In one sentence, and not as a bad line."""
    path = tmp_path / name
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((mark + "id\n1\n").encode(encoding))
    with pytest.raises(BadRecord) as caught:
        list(read_records(str(path)))
    assert str(caught.value) == f"{path}: it is UTF-16 or UTF-32: save it as UTF-8"


def test_a_field_may_be_as_large_as_a_body(tmp_path: Path) -> None:
    """The limit of csv, which is one for the whole process, stays what it was."""
    path = tmp_path / "a.csv"
    large = "x" * (2 * csv.field_size_limit())
    path.write_text(f'id,text\n1,"{large}"\n2,y\n')
    before = csv.field_size_limit()
    records = read_records(str(path))
    assert next(records) == {"id": "1", "text": large}
    assert csv.field_size_limit() == before
    with pytest.raises(csv.Error):
        next(csv.reader([large]))
    assert next(records) == {"id": "2", "text": "y"}


@pytest.mark.parametrize(
    ("text", "line"),
    [(f'a,b\n1,2\n3,"{"x" * (MAX_LINE_BYTES + 1)}"\n', 3), ("a,b\n" + '"' + "x\n" * (MAX_LINE_BYTES // 2 + 1), 2)],
)
def test_a_field_that_is_too_large_is_named_where_it_begins(tmp_path: Path, text: str, line: int) -> None:
    """On one line or on many."""
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(BadRecord, match=f"a.csv:{line}: "):
        list(read_records(str(path)))


def test_several_files_are_read_at_the_same_time(tmp_path: Path) -> None:
    """By several threads, and the limit is what it was when they have ended."""
    before, large = csv.field_size_limit(), "x" * 200_000
    paths = [tmp_path / f"{number}.csv" for number in range(4)]
    for path in paths:
        path.write_text("id,text\n" + f"1,{large}\n" * 20)
    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(lambda path: len(list(read_records(str(path)))), paths))
    assert counts == [20] * 4
    assert csv.field_size_limit() == before
