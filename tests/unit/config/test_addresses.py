"""A broker's URL: what is accepted, what is said, and that a password is never shown."""

from __future__ import annotations

import pytest

from runner.config.addresses import parse_broker_url


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:p@host",
        "amqps://u:p@host:5671/vhost",
        "amqp://u:p@host/",
        "amqp://u:p@host/%2F",
        "amqp://u:p%40%2F@host/a%2Fb",
        "amqp://u:p@[::1]:5672/",
        "amqp://u:p@my_host.internal",
        "amqp://localhost",
        "amqp://127.0.0.1:5672/x",
        "amqp://[::1]",
        "amqp://rabbit.localhost",
    ],
)
def test_a_good_url_is_returned_as_it_is(url: str) -> None:
    """Blanks around it are dropped."""
    assert parse_broker_url(f" {url} ") == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "empty"),
        ("memory", "starts with amqp://"),
        ("http://u:S3CR3T@host", "starts with amqp://"),
        ("AMQP://u:S3CR3T@host", "starts with amqp://"),
        ("amqp:/u:S3CR3T@host", "starts with amqp://"),
        ("amqp://", "no host"),
        ("amqp://u:S3CR3T@", "no host"),
        ("amqp://u:S3CR3T@:5672", "no host"),
        ("amqp://u:S3CR3T@host:0", "port"),
        ("amqp://u:S3CR3T@host:", "port"),
        ("amqp://u:S3CR3T@host:70000", "port"),
        ("amqp://u:S3CR3T@host:S3CR3T", "port"),
        ("amqp://u:S3CR3T@host?heartbeat=5&no_verify_ssl=false", '"heartbeat", "no_verify_ssl"'),
        ("amqp://u:S3CR3T@host/v#x", "#"),
        ("amqp://u:S3CR3T@host/a/b", "%2F"),
        ("amqp://u:S3CR3T@host//prod", "%2F"),
        ("amqp://u:S3C/R3T@host", "%2F"),
        ("amqp://u:S3C#R3T@host", "%23"),
        ("amqp://u:S3C?R3T@host", "%3F"),
        ("amqp://u:S3CR 3T@host", "%20"),
        ("amqp://u:S3CR\t3T@host", "%20"),
        ("amqp://host", "no user and password"),
        ("amqp://u@host", "no password"),
        ("amqp://:S3CR3T@host", "no user"),
        ("amqp://u@localhost", "no password"),
        ("amqp://u:S3CR3T@a,b", "urls:"),
        ("amqp://u:S3CR3T@[::1", "host"),
        ("amqp://u:S3CR3T@ho*st", "host"),
        ("amqp://u:S3CR3T@host/" + "v" * 300, "255"),
    ],
)
def test_a_bad_url_is_refused_in_one_sentence_without_its_password(url: str, words: str) -> None:
    """The sentence says what to write."""
    with pytest.raises(ValueError) as caught:
        parse_broker_url(url)
    assert words in str(caught.value)
    assert "S3C" not in str(caught.value)
