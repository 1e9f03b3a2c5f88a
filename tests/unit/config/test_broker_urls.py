"""A broker's URL: what is accepted, what is said, and that a password is never shown."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.config.broker_urls import broker_url, parse_broker_url
from runner.pipeline.model import BrokerSettings
from runner.transports.rabbitmq.connection import connection_url


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


@pytest.mark.parametrize(
    ("login", "user", "password"),
    [
        ("CORP\\ann:se\\cret", "CORP\\ann", "se\\cret"),
        ("a[b]:p[1]", "a[b]", "p[1]"),
        ("ü:ß", "ü", "ß"),
        ("a:50%off", "a", "50%off"),
        ("a:b%2Fc:d", "a", "b/c:d"),
        ('a:<p>"{}|^`', "a", '<p>"{}|^`'),
        ("a:p@ss", "a", "p@ss"),
        ("a℀:b", "a℀", "b"),
    ],
)
def test_what_looks_odd_in_a_login_is_taken_as_it_is(login: str, user: str, password: str) -> None:
    """As variables bring it. The client that connects reads the same."""
    url = connection_url(parse_broker_url(f"amqp://{login}@host/"), BrokerSettings())
    assert (url.user, url.password, url.host) == (user, password, "host")


ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(ANY, ANY, ANY)
@example("%", "%25", "%")
@example("[", "]", "[v]")
@example("u", "p", "xn--a")
@example("u", "p", "a..b")
def test_a_url_is_refused_in_words_or_can_be_connected_to(user: str, password: str, place: str) -> None:
    """Whatever stands in it: never a traceback of the client that connects."""
    try:
        url = parse_broker_url(f"amqp://{user}:{password}@{place}")
    except ValueError:
        return
    connection_url(url, BrokerSettings())


@given(ANY.filter(bool), ANY.filter(bool), ANY)
def test_parts_are_taken_as_they_are(user: str, password: str, vhost: str) -> None:
    try:
        text = broker_url("host", 5671, vhost, (user, password), is_secure=True)
    except ValueError:
        assert len(vhost.encode()) > 255
        return
    url = connection_url(text, BrokerSettings())
    assert (url.user, url.password, url.host, url.port, url.scheme) == (user, password, "host", 5671, "amqps")
    assert unquote(url.raw_path[1:]) == vhost


@pytest.mark.parametrize("host", ["", "a/b", "a:b:c", "u@h", "h?x", "h#x", "a b", "[::1"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"host|URL"):
        broker_url(host, None, "/", ("u", "p"), is_secure=False)


def test_a_host_may_be_an_address_of_version_6() -> None:
    assert broker_url("::1", None, "/", None, is_secure=False) == "amqp://[::1]/%2F"
