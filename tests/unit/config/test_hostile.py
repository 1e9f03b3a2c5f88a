"""Whatever stands in a file, the result is a spec or problems in our words: nothing is raised."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.config import diagnostics
from runner.config.code_frame import code_frame
from runner.config.loader import load_text
from runner.config.scalars import resolve_scalar
from tests.unit.config.test_spec import PYDANTIC_WORDS
from tests.unit.config.test_yaml_parser import PYYAML_WORDS

EXAMPLE = """\
version: 1
name: shop
broker: {url: "${URL:-amqp://u:p@host/v}", heartbeat: 10s, topology: manage}
x-common: &common {concurrency: 5, retry: {attempts: 5, on: [TimeoutError, 'a.b:C']}}
include: []
defaults:
  queue: {max_bytes: 1MB}
exchanges: {erp: topic}
queues:
  order_queue:
  audit: {type: stream, message_ttl: 2d}
  import.rows: {type: classic, durable: false, arguments: {x-expires: 5}}
  fulfilment:
    events: [order.paid, 'order.*']
    bind: [{exchange: erp, key: "stock.#"}]
events:
  order.paid: handlers.models:OrderPaid
  other:
producers:
  place_orders: {handler: handlers.orders:place, every: 5s, to: [order_queue, other]}
  report: {handler: handlers.orders:report, cron: "0 6 * * mon-fri", timezone: Europe/Berlin, to: other, rate: 5/s}
  backfill: {file: data/orders.jsonl, to: order_queue, rate: 200/s}
  web: {http: /orders, to: order_queue}
subscribers:
  process:
    <<: *common
    from: order_queue
    handler: handlers.orders:process
    timeout: 1m
    order_by: customer.id
    run_in: thread
  load: {from: audit, handler: 'handlers.orders:load', batch: {size: 200, wait: 2s}, rate: 10/m, dedupe: {window: 1h}}
resources:
  db: {factory: handlers.db:connect, with: {size: 5}}
logging: {level: info, levels: {aio_pika: warning}}
shutdown: {grace: 30s}
"""

PIECES = st.sampled_from(
    [
        *("", " ", "  ", "\t", "\n", ":", ": ", "- ", "[", "]", "{", "}", "'", '"', "&a ", "*a", "*common", "<<: "),
        *("!x ", "#", "${", "${A}", "$$", "|\n", ">\n", "? ", "%", "@", "---\n", "...\n", ",", "\\", "null"),
        *("true", "-1", "1e999", ".nan", "0x1f", "🎉", "\u2028", "\x00", "\ufeff", "\r", "x-", "amq.", "x" * 300),
    ]
)
QUICK = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

WORDS = [
    word for word in (*PYYAML_WORDS, *PYDANTIC_WORDS) if word not in ("found", "valid ", "token", "context", "string")
]


def check(text: str) -> None:
    loaded = load_text(text, Path("a.yaml"), {"A": "a: [b"})
    assert (loaded.spec is None) == bool(loaded.problems)
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
    for problem in loaded.problems:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.length >= 1
        quoted = re.sub(r'".*"|(text|key|name|character|value of) .*', "", problem.message, flags=re.DOTALL)
        assert not any(word in quoted for word in WORDS), problem.message
    for style in ("full", "concise", "json", "github"):
        assert not {"\x00", "\x1b", "\r", "\u2028"} & set(diagnostics.render(loaded.problems, style))


def test_the_example_itself_is_valid() -> None:
    """Otherwise its mutations would prove little."""
    assert load_text(EXAMPLE, Path("a.yaml"), {}).problems == []


@QUICK
@given(st.text())
def test_any_text_ends_in_a_spec_or_problems(text: str) -> None:
    """Also text that is no YAML at all."""
    check(text)


@QUICK
@given(st.lists(PIECES).map("".join))
def test_any_mixture_of_yaml_ends_in_a_spec_or_problems(text: str) -> None:
    """Indicators in every order."""
    check(text)


@QUICK
@given(st.integers(0, len(EXAMPLE)), st.integers(0, 30), PIECES)
def test_any_mutation_of_a_pipeline_ends_in_a_spec_or_problems(start: int, length: int, piece: str) -> None:
    """Something cut out, something put in."""
    check(EXAMPLE[:start] + piece + EXAMPLE[start + length :])


LINES = EXAMPLE.splitlines(keepends=True)


@QUICK
@given(st.lists(st.sampled_from(LINES)))
def test_any_shuffle_of_lines_ends_in_a_spec_or_problems(lines: list[str]) -> None:
    """Values where others belong."""
    check("".join(lines))


YAML_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["a", "1s", "1MB", "5/s", "a:b", "", "order.*", "quorum"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "type", "from", "url"]), inner),
    max_leaves=6,
)
KEYS = re.findall(r"([a-z_]+):", EXAMPLE)


@QUICK
@given(st.sampled_from(sorted(set(KEYS))), YAML_VALUES)
def test_any_value_at_any_key_ends_in_a_spec_or_problems(key: str, value: object) -> None:
    """Every type at every place."""
    written = repr(value).replace("None", "null").replace("True", "true").replace("False", "false")
    check(re.sub(rf"(\b{key}:)[^\n]*", lambda match: f"{match[1]} {written}", EXAMPLE, count=1))


@given(st.text(), st.integers(-5, 50), st.integers(-5, 50))
def test_any_line_has_an_excerpt(line: str, column: int, length: int) -> None:
    """On one line, with at least one caret."""
    shown, carets = code_frame(line, column, length)
    assert carets.strip(" ").strip("^") == ""
    assert "^" in carets
    assert len(shown.splitlines()) <= 1


@given(st.text())
def test_any_plain_scalar_has_a_value(text: str) -> None:
    """And what is not converted stays as it is."""
    value = resolve_scalar(text)
    assert not isinstance(value, str) or value == text


def test_a_key_that_holds_a_password_is_hidden_too() -> None:
    """In the path, the message and the excerpt."""
    loaded = load_text("version: 1\nqueues:\n  'amqp://u:S3CR3T@h': {typ: 1}\n", Path("a.yaml"), {})
    assert loaded.problems
    for style in ("full", "concise", "json", "github"):
        assert "S3CR3T" not in diagnostics.render(loaded.problems, style)


def test_wrong_values_behind_aliases_do_not_flood() -> None:
    """Ninety thousand errors of pydantic are nine hundred wrong values in the file."""
    wrong = "5," * 900
    queues = ", ".join(f"q{number}: {{events: *w}}" for number in range(100))
    text = f"version: 1\nx-w: &w [{wrong}]\nqueues: {{{queues}}}\n"
    assert len(load_text(text, Path("a.yaml"), {}).problems) == 900


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nsubscribers:\n" + "".join(f"s{index}:\n" for index in range(9000)),
        "version: 1\n" + "\tto: x\n" * 10_000,
        "version: 1\nqueues:\n  a: {" + "，" * 40_000 + "}",
        "version: 1\nqueues: {" + "a:1, " * 9000 + "}",
    ],
    ids=["names", "tabs", "wide", "flow"],
)
def test_the_search_for_slips_ends_soon(text: str) -> None:
    """Its time grows with the square of the lines, so long files are not searched."""
    started = time.process_time()
    assert load_text(text, Path("a.yaml"), {}).problems
    assert time.process_time() - started < 10
