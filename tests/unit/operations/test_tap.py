"""Which bindings a name is tapped with, and how messages are recorded."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import RunnerError
from runner.message import Envelope
from runner.operations.dead_letters import select_dead_letter_queues
from runner.operations.tap import CannotTap, pipeline_with_target, recorded_line, tap_source
from runner.pipeline.file_source import read_records
from runner.pipeline.model import Pipeline
from runner.system import load


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("order.paid", {("events", "order.paid")}),
        ("order.sent", {("other", "sent")}),
        ("order.#", {("events", "order.paid"), ("other", "sent")}),
        ("orders", {("events", "order.paid")}),
        ("handle", {("events", "order.paid")}),
        ("hear", {("events", "order.*"), ("other", "sent")}),
        ("shop.hear", {("events", "order.*"), ("other", "sent")}),
        ("pdf", {("hdr", "")}),
    ],
)
def test_a_name_is_heard_where_its_messages_come_from(shop: Pipeline, name: str, places: set[tuple[str, str]]) -> None:
    """Events by their address, queues and subscribers by their bindings, patterns by the events that match."""
    assert {(binding.exchange, binding.key) for binding in tap_source(shop, name).bindings} == places


def test_the_arguments_of_a_binding_are_kept(shop: Pipeline) -> None:
    (binding,) = tap_source(shop, "pdf").bindings
    assert binding.arguments == {"kind": "pdf", "x-match": "any"}


@pytest.mark.parametrize("name", ["plain", "plainly", "shop.hear.dead"])
def test_what_no_exchange_feeds_cannot_be_heard(shop: Pipeline, name: str) -> None:
    """What is published to a queue by its name goes there alone."""
    with pytest.raises(CannotTap):
        tap_source(shop, name)


@pytest.mark.parametrize("name", ["order.pid", "nothing.*", "", "*"])
def test_an_unknown_name_is_wrong_usage(shop: Pipeline, name: str) -> None:
    with pytest.raises(RunnerError) as error:
        tap_source(shop, name)
    assert error.value.exit_code == 2
    assert error.value.hint


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"a": 1.10}', b'{"a": 1.10}'),
        (b'\r\n{"a":\n1}\n', b'  {"a": 1} '),
        (b"text", b'"text"'),
        ("zw\nei ü".encode(), '"zw\\nei ü"'.encode()),
        (b"", b'""'),
        (b"\xff", None),
        (b"NaN", b'"NaN"'),
    ],
)
def test_a_message_is_recorded_as_a_line(body: bytes, line: bytes | None) -> None:
    """JSON as it is, text as a JSON string, anything else not at all."""
    assert recorded_line(Envelope(body)) == line


def test_what_is_compressed_is_recorded_uncompressed() -> None:
    assert recorded_line(Envelope(gzip.compress(b'{"a": 1}'), content_encoding="gzip")) == b'{"a": 1}'
    assert recorded_line(Envelope("ü".encode("latin-1"), content_encoding="latin-1")) == '"ü"'.encode()
    assert recorded_line(Envelope(b"{}", content_encoding="gzip")) is None
    assert recorded_line(Envelope(b"{}", content_encoding="br")) is None


@given(bodies=st.lists(st.text(st.characters(codec="utf-8")).map(str.encode) | st.binary(), max_size=5))
def test_a_record_is_read_as_it_was_written(bodies: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Line by line, whatever was in the messages."""
    written = [line for body in bodies if (line := recorded_line(Envelope(body))) is not None]
    path = tmp_path_factory.mktemp("record") / "seen.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in written))
    assert [json.loads(payload) for payload in read_records(str(path))] == [json.loads(line) for line in written]


def test_a_name_of_several_pipelines_must_mean_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same event may be in several files; subscribers of one name have queues of their own."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        text = f"version: 1\nname: {name}\nevents: {{e: }}\nsubscribers: {{s: {{from: e, handler: 'json:dumps'}}}}\n"
        Path(f"{name}.yaml").write_text(text)
    pipelines = load([Path("a.yaml"), Path("b.yaml")], {}).pipelines
    assert pipeline_with_target(pipelines, "e") is pipeline_with_target(pipelines, "a.s") is pipelines[0]
    assert pipeline_with_target(pipelines, "b.s") is pipelines[1]
    with pytest.raises(RunnerError, match=r'"s" means different things in a.yaml, b.yaml'):
        pipeline_with_target(pipelines, "s")
    assert [choice.dlq.name for choice in select_dead_letter_queues(pipelines, "b.s")] == ["b.s.dead"]
    with pytest.raises(RunnerError, match=r'"s" means different things in a.yaml, b.yaml'):
        select_dead_letter_queues(pipelines, "s")
