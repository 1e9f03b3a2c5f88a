"""Tests that are written from real messages: what they hold, what is masked, and where they go in a file."""

from __future__ import annotations

import gzip
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from runner.config.suite_loader import read_suite
from runner.message import Address, Envelope
from runner.operations.dead_letters import DeadLetterQueue, parse_dead_letter
from runner.operations.pipeline_files import read_specs
from runner.operations.recording import MAX_MESSAGES, CannotRecord, RecordedTest, Recorder, file_of, write_test
from runner.system import System, load

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
SHOP = """\
version: 1
name: shop
broker: ${RABBITMQ_URL}
redact: [customer.email, items.card]
queues:
  orders:
  loose: {bind: [{exchange: amq.topic, key: loose}]}
events:
  order.paid: tests.unit.operations.test_recording:Paid
subscribers:
  ship:
    from: orders
    handler: "tests.unit.operations.test_recording:ship"
    with: {mark: "${MARK}", token: "${API_TOKEN}"}
  log: {from: order.paid, handler: "tests.unit.operations.test_recording:log"}
"""
ENVIRON = {"RABBITMQ_URL": "amqp://u:hunter2@rabbit", "MARK": "a mark", "API_TOKEN": "hunter2"}


class Paid(BaseModel):
    number: int
    pin: SecretStr | None = None


def ship(order: dict[str, Any], mark: str, token: str) -> None:
    """Fail as a handler does that takes a price for granted."""
    order["price"]


def log(paid: Paid) -> None: ...


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text(SHOP)
    return tmp_path


def system() -> System:
    return load([Path("shop.yaml")], ENVIRON)


def recorder(*paths: str, name: str = "orders") -> Recorder:
    return Recorder(system().pipelines[0], name, paths)


def dead(payload: bytes = b'{"id": 1}', queue: str = "orders", **more: Any) -> RecordedTest:
    headers = {"x-runner-reason": "exhausted", "x-runner-origin": queue, "x-runner-error-type": "KeyError"}
    headers |= {"x-runner-error": "'price' hunter2", "x-runner-origin-exchange": more.pop("exchange", "")}
    headers |= {"x-runner-origin-key": more.pop("key", queue), "x-runner-first-failed-at": NOW.isoformat()}
    more = {"message_id": "o-1", **more}
    envelope = Envelope(payload, headers={**headers, **more.pop("headers", {})}, **more)
    letter = parse_dead_letter(envelope, DeadLetterQueue(f"{queue}.dead", frozenset({queue})))
    return recorder(name=f"{queue}.dead").test_of_dead_letter(letter)


def payload_of(body: str, *paths: str, **more: Any) -> Any:
    recording = recorder(*paths)
    assert recording.tapped(Envelope(body.encode(), "o-1", **more), Address("", "orders"))
    return recording.messages[0]["payload"]


# What is recorded


def test_a_dead_letter_becomes_the_test_that_its_subscriber_handles_it() -> None:
    test = dead(headers={"tenant": "a", "x-death": [], "at": NOW, "raw": b"\xff"}, content_type="application/json")
    assert test.name == "ship handles o-1"
    assert test.comment == "Failed at 2026-11-30T12:00:00+00:00 with KeyError."
    assert test.case == {
        "only": ["ship"],
        "publish": [
            {
                "to": "orders",
                "payload": {"id": 1},
                "id": "o-1",
                "headers": {"tenant": "a", "at": "2026-11-30T12:00:00+00:00", "raw": "\\xff"},
            }
        ],
        "expect": {"handled": {"ship": 1}, "dead": "none"},
    }


def test_a_dead_letter_of_an_own_queue_is_published_to_its_event_for_its_subscriber_alone() -> None:
    test = dead(b'{"number": 1}', "shop.log", exchange="events", key="order.paid")
    assert (test.case["only"], test.case["publish"][0]["to"]) == (["log"], "order.paid")


def test_a_message_that_leads_to_no_queue_or_event_of_the_pipeline_is_not_recorded() -> None:
    with pytest.raises(CannotRecord, match=r"no queue or event of the pipeline leads to shop\.log"):
        dead(queue="shop.log", exchange="other", key="order.paid")
    assert not recorder(name="shop.log").tapped(Envelope(b"1"), Address("amq.topic", "loose"))


def test_tapped_messages_are_published_to_the_event_or_queue_that_they_went_to() -> None:
    recording = recorder(name="loose")
    assert recording.tapped(Envelope(b'{"number": 1}'), Address("events", "order.paid"))
    assert recording.tapped(Envelope(b"text", "m-2", content_type="text/plain"), Address("amq.topic", "loose"))
    test = recording.test_of_tapped(NOW)
    assert test.name == "messages of loose are handled"
    assert test.case == {
        "publish": [
            {"to": "order.paid", "payload": {"number": 1}},
            {"to": "loose", "payload": "text", "id": "m-2"},
        ],
        "expect": {"dead": "none"},
    }


@pytest.mark.parametrize(
    ("envelope", "payload"),
    [
        (Envelope(gzip.compress(b'{"a": 1}'), content_encoding="gzip"), {"a": 1}),
        (Envelope('{"a": "é"}'.encode("utf-16"), content_type="application/json; charset=utf-16"), {"a": "é"}),
        (Envelope(b'"a $x ${Y}: #"', content_type="application/json"), "a $x ${Y}: #"),
        (Envelope(b"null", content_type="application/json"), None),
    ],
)
def test_payloads_are_decoded_as_a_handler_gets_them(envelope: Envelope, payload: Any) -> None:
    recording = recorder()
    assert recording.tapped(envelope, Address("", "orders"))
    assert recording.messages[0]["payload"] == payload


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"{"])
def test_a_body_that_no_test_can_hold_is_not_recorded(body: bytes) -> None:
    kind = "application/json" if body == b"{" else "application/octet-stream"
    recording = recorder()
    assert not recording.tapped(Envelope(body, content_type=kind), Address("", "orders"))
    with pytest.raises(CannotRecord, match="o-1 cannot be recorded"):
        dead(body, content_type=kind)


def test_a_test_has_a_limited_number_of_messages() -> None:
    recording = recorder()
    taken = [recording.tapped(Envelope(b"1"), Address("", "orders")) for _ in range(MAX_MESSAGES + 1)]
    assert taken == [True] * MAX_MESSAGES + [False]


# What is masked


def test_redacted_paths_secret_names_urls_and_secret_types_are_masked_and_keep_their_types() -> None:
    written = {
        "id": 7,
        "customer": {"email": "a@b", "name": "Ann", "phones": ["1", "2"]},
        "items": [{"card": 4111, "sku": "x"}, {"card": None}],
        "api_token": "hunter2",
        "password": {"old": "hunter2", "length": 7, "is_set": True},
        "pin": "hunter2",
        "link": "https://u:hunter2@host/",
    }
    masked = payload_of(json.dumps(written), "customer.phones")
    assert masked == {
        "id": 7,
        "customer": {"email": "***", "name": "Ann", "phones": ["***", "***"]},
        "items": [{"card": 0, "sku": "x"}, {"card": None}],
        "api_token": "***",
        "password": {"old": "***", "length": 0, "is_set": True},
        "pin": "***",
        "link": "https://u:***@host/",
    }
    assert payload_of('{"a": {"x": "s", "y": "s"}, "x": "s"}', "a.*") == {"a": {"x": "***", "y": "***"}, "x": "s"}
    assert "hunter2" not in str(dead(headers={"authorization": "hunter2", "via": "amqp://u:hunter2@h"}))


# Where it is written


def write(test: RecordedTest, file: str = "shop.test.yaml") -> str:
    specs = read_specs([Path("shop.yaml")], ENVIRON)
    return write_test(Path(file), test, file_of(specs, system().pipelines[0]), ENVIRON)


def read(file: str = "shop.test.yaml") -> Any:
    """Return the data of a test file, which `runner test` must be able to read."""
    assert read_suite(Path(file)).spec is not None
    return yaml.safe_load(Path(file).read_text())


def test_a_new_file_names_the_pipeline_and_its_variables_without_secrets_and_is_private() -> None:
    Path("tests").mkdir()
    write(dead(), "tests/shop.test.yaml")
    written = read("tests/shop.test.yaml")
    assert written["pipelines"] == ["../shop.yaml"]
    assert written["env"] == {"MARK": "a mark", "API_TOKEN": "***"}
    assert list(written["tests"]) == ["ship handles o-1"]
    assert "hunter2" not in Path("tests/shop.test.yaml").read_text()
    assert stat.S_IMODE(Path("tests/shop.test.yaml").stat().st_mode) == 0o600


EXISTING = """\
# Mine.
version: 1
pipelines: [shop.yaml]
tests:
    # The first.
    one:     {publish: [{to: orders, payload: "a # b"}], expect: {dead: none}}   # stays
    two:
        publish:
            - to: orders
              payload: |
                text
                # no comment
        expect: {handled: {ship: 1}}

# About the variables.
env: {MARK: x}
"""


@pytest.mark.parametrize(
    "text", [EXISTING, EXISTING.partition("\n# About")[0], EXISTING.partition("    two")[0].rstrip()]
)
def test_a_test_is_added_after_the_others_and_nothing_else_changes(text: str) -> None:
    """With a key after the tests, and at the end of the file, also without a line break."""
    path = Path("shop.test.yaml")
    path.write_text(text)
    path.chmod(0o644)
    before = yaml.safe_load(text)
    assert [write(dead()), write(dead())] == ["ship handles o-1", "ship handles o-1 (2)"]
    after = read()
    assert list(after["tests"]) == [*before["tests"], "ship handles o-1", "ship handles o-1 (2)"]
    assert after | {"tests": before["tests"]} == before | {"tests": before["tests"]}
    kept = [line for line in path.read_text().splitlines() if line in text.splitlines()]
    assert [line for line in kept if line.strip()] == [line for line in text.splitlines() if line.strip()]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [file.name for file in path.resolve().parent.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version: 1\ntests: {a: {expect: {dead: none}}}\n", "has no `tests:` with a test on lines of its own"),
        ("queues: [\n", "cannot be read"),
        ("version: 1\nqueues: {}\n", "has no `tests:`"),
        ("- a\n", "cannot be read"),
    ],
)
def test_a_file_that_is_no_test_file_is_left_alone(text: str, reason: str) -> None:
    Path("shop.test.yaml").write_text(text)
    with pytest.raises(CannotRecord, match=reason):
        write(dead())
    assert Path("shop.test.yaml").read_text() == text


def test_a_message_that_makes_the_file_too_large_is_not_recorded() -> None:
    write(dead())
    before = Path("shop.test.yaml").read_text()
    reason = r"with one more test, shop\.test\.yaml cannot be read: the file has more than"
    with pytest.raises(CannotRecord, match=reason):
        write(dead(json.dumps(list(range(200_000))).encode()))
    assert Path("shop.test.yaml").read_text() == before


def test_bytes_that_are_no_text_are_written_as_text() -> None:
    test = dead(headers={"raw": "a\udcff"}, message_id="o\udcfe")
    write(test)
    assert test.case["publish"][0]["headers"] == {"raw": "a\\xff"}
    assert test.case["publish"][0]["id"] == "o\\xfe"


def test_a_file_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(CannotRecord, match=r"nowhere/shop\.test\.yaml cannot be written: no such file or directory"):
        write(dead(), "nowhere/shop.test.yaml")
