"""The bodies of requests: what is a payload, and what is refused before anything is published."""

from __future__ import annotations

import pytest

from runner.pipeline.codec import JsonText
from runner.runtime.http_producer import _parse_body

CURLS_OWN = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.api+json", CURLS_OWN])
def test_json_that_is_broken_is_refused(content_type: str) -> None:
    """Also under the type that `curl -d` sends."""
    assert isinstance(_parse_body(b'{"id": 7}', content_type), JsonText)
    with pytest.raises(ValueError, match="the body is not JSON: it ends too early"):
        _parse_body(b'{"id": 7,', content_type)


@pytest.mark.parametrize(
    ("body", "content_type"), [(b'{"id": 7,', "text/plain"), (b"id=7", CURLS_OWN), (b"%7Bid", CURLS_OWN)]
)
def test_text_stays_text(body: bytes, content_type: str) -> None:
    assert _parse_body(body, content_type) == body.decode()
