"""Names that do not exist, and options that cannot work together."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config.loader import load_text
from runner.pipeline.spec_checks import check_names
from tests.unit.pipeline.shop_pipelines import SUBSCRIBER, problems


@pytest.mark.parametrize(
    ("text", "code", "path", "hint"),
    [
        ("queues: {q: }\nevents: {q: }\n" + SUBSCRIBER, "name-clash", "events.q", "rename"),
        ("queues: {qu: }\n" + SUBSCRIBER, "unknown-name", "subscribers.s.from", 'or write "qu" if that is meant'),
        ("queues: {other_one: }\n" + SUBSCRIBER, "unknown-name", "subscribers.s.from", "add it under"),
        ("queues: {q: }\nproducers: {p: {handler: 'H:produce', to: [q, qq]}}", "unknown-name", "producers.p.to.1", '"q"'),
        ("queues: {q: {events: [nope]}}\n" + SUBSCRIBER, "unknown-name", "queues.q.events.0", "events:"),
        ("queues: {q: {bind: [{exchange: nope}]}}\n" + SUBSCRIBER, "unknown-name", "queues.q.bind.0.exchange", "exchanges:"),
        ("queues: {a: , b: }\nsubscribers: {s: {from: [a, b], handler: 'H:handle'}}", "bad-source", "subscribers.s.from.0", "one"),
        ("queues: {q: }\nsubscribers: {s: {from: q, queue: {type: classic}, handler: 'H:handle'}}", "bad-source", "subscribers.s.queue", "queues: q:"),
        ("queues: {shop.s: }\nevents: {e: }\nsubscribers: {s: {from: e, handler: 'H:handle'}}", "name-clash", "subscribers.s", "rename"),
        ("exchanges: {f: fanout}\nevents: {e: {exchange: f}}\nsubscribers: {s: {from: e, handler: 'H:handle'}}", "bad-exchange", "events.e.exchange", "topic"),
        ("queues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handel'}}", "attribute-not-found", "subscribers.s.handler", '"handle"'),
        ("queues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handle', with: {a: 1}}}", "wrong-parameters", "subscribers.s.with.a", "with"),
        ("queues: {q: {schema: 'H:NotASchema'}}\n" + SUBSCRIBER, "bad-schema", "queues.q.schema", "model"),
        ("queues: {q: {schema: 'H:Order'}}\nsubscribers: {s: {from: q, handler: 'H:takes_other'}}", "schema-mismatch", "subscribers.s.handler", "Order"),
        ("events: {a: 'H:Order', b: 'H:Other'}\nsubscribers: {s: {from: [a, b], handler: 'H:takes_other'}}", "schema-mismatch", "subscribers.s.handler", "with Order | Other"),
        ("queues: {q: {schema: 'H:Order'}}\nsubscribers: {s: {from: q, handler: 'H:handle', order_by: customer.id}}", "bad-payload-path", "subscribers.s.order_by", "one of: id"),
        ("exchanges: {x: topic}\nqueues: {q: }\nproducers: {p: {handler: 'H:produce', to: x}}\n" + SUBSCRIBER, "unknown-name", "producers.p.to", "exchange: x"),
        ("exchanges: {x: topic}\nsubscribers: {s: {from: x, handler: 'H:handle'}}", "unknown-name", "subscribers.s.from", "bind"),
        ("resources: {db: 'H:produce'}", "bad-factory", "resources.db.factory", "@contextlib.contextmanager"),
        ("resources: {db: 'H:produce_async'}", "bad-factory", "resources.db.factory", "@contextlib.asynccontextmanager"),
        ("resources: {db: {factory: 'H:needs', with: {path: '${NOPE}'}}}", "unset-variable", "resources.db.with.path", ""),
        ("queues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handle', run_in: thread}}", "bad-run-in", "subscribers.s.run_in", "def"),
        ("queues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handle', retry: {on: ['H:Order']}}}", "not-an-exception", "subscribers.s.retry.on.0", "Exception"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_an_error(text: str, code: str, path: str, hint: str) -> None:
    """With its place, and what to write."""
    (found,) = problems(text)
    assert found[:2] == (code, path)
    assert hint in found[2]


def test_compressing_with_a_library_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """For queues and events; gzip and deflate are always there."""
    text = (
        "queues: {q: {compress: {over: 1kB, encoding: zstd}}}\nevents: {e: {compress: {over: 1kB, encoding: zstd}}}\n"
    )
    assert problems(text) == []
    monkeypatch.setattr("runner.pipeline.spec_checks.ZSTD", "nowhere.zstd")
    assert [(code, path) for code, path, _ in problems(text)] == [
        ("missing-extra", "queues.q.compress.encoding"),
        ("missing-extra", "events.e.compress.encoding"),
    ]
    assert problems(text.replace("zstd", "gzip")) == []


@pytest.mark.parametrize(
    ("url", "severity"), [("sqlite:no/seen.db", "error"), ("sqlite:/no/seen.db", "warning"), ("sqlite:seen.db", None)]
)
def test_the_folder_of_a_store_is_there(url: str, severity: str | None, tmp_path: Path) -> None:
    """A path of another machine may be meant where it is absolute."""
    text = f"""
version: 1
queues: {{orders: }}
stores: {{seen: '{url}'}}
subscribers: {{ship: {{from: orders, handler: 'shop:ship', dedupe: {{window: 1h, store: seen}}}}}}
"""
    _, problems = check_names(load_text(text, tmp_path / "pipeline.yaml", {}))
    assert [(each.code, each.severity) for each in problems] == ([("bad-url", severity)] if severity else [])
