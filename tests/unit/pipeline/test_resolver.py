"""A spec becomes a pipeline that can run, or all problems."""

from __future__ import annotations

from tests.unit.pipeline.shop_pipelines import SUBSCRIBER, pipeline, problems


def test_defaults_and_derived_values() -> None:
    """What is not written is filled in, once, here."""
    found = pipeline("defaults: {subscriber: {concurrency: 4, timeout: 5s}}\nqueues: {q: }\n" + SUBSCRIBER)
    subscriber = found.subscribers[0]
    assert (subscriber.concurrency, subscriber.prefetch, subscriber.timeout_s) == (4, 8, 5.0)
    assert subscriber.retry.attempts == 3
    assert subscriber.dead_letter == "q.dead"
    assert found.broker.is_memory
    assert found.grace_s == 30.0


def test_the_brokers_password_is_in_no_repr() -> None:
    """Whoever prints a Pipeline prints no secret."""
    found = pipeline("broker: '${URL}'\nqueues: {q: }\n" + SUBSCRIBER, URL="amqp://user:s3cret@host/v")
    assert found.broker.urls == ("amqp://user:s3cret@host/v",)
    assert "s3cret" not in repr(found)
    assert found.broker.shown() == "amqp://user:***@host/v"


def test_all_problems_are_reported_at_once() -> None:
    """Names and imports too, not only the first kind."""
    text = (
        "queues: {q: {schema: 'H:Nope', tipe: classic}}\n"
        "producers: {p: {handler: 'nowhere:f', to: r}}\n"
        "subscribers: {s: {from: x, handler: 'H:nothing_like_it', timeout: 5, retry: {on: ['H:Nope']}}}\n"
    )
    assert len(problems(text)) == 8


def test_the_content_hash_changes_with_any_value_but_the_broker() -> None:
    """Two machines that run the same file against different brokers have the same one; another limit is another file."""
    text = f"broker: amqp://a:one@first\nqueues: {{q: {{}}}}\n{SUBSCRIBER}"
    first = pipeline(text)
    assert pipeline(text).content_hash == first.content_hash
    assert pipeline(text.replace("a:one@first", "b:two@second")).content_hash == first.content_hash
    other = pipeline(text.replace("from: q,", "from: q, concurrency: 3,"))
    assert other.fingerprint == first.fingerprint
    assert other.content_hash != first.content_hash
    variable = text.replace("from: q,", "from: q, concurrency: '${N}',")
    assert pipeline(variable, N="3").content_hash == other.content_hash
