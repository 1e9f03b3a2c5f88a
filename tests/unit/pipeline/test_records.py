"""Files become payloads, line by line."""

from pathlib import Path

import pytest

from runner.pipeline.records import BadRecord, read_records


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
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    """With file and line, so that it can be mended."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadRecord) as caught:
        list(read_records(str(path)))
    assert str(caught.value).endswith(message)


def test_a_large_file_is_read_as_it_is_needed(tmp_path: Path) -> None:
    """The first record comes before the rest is read: a bad line at the end does not matter yet."""
    path = tmp_path / "a.jsonl"
    path.write_text("1\nbad\n")
    assert next(iter(read_records(str(path)))) == b"1"
