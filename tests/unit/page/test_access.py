"""Access to the page: the token, and the browser's headers about the site that sends a request."""

from __future__ import annotations

import contextlib

import pytest

from runner.page.access import Access, Denied, WeakToken, check_origin, make_access

TOKEN = "correct-horse-battery"


def status(access: Access, authorization: str, *, is_action: bool = False) -> int:
    try:
        access.check(authorization, is_action=is_action)
    except Denied as denied:
        return denied.status
    return 200


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN} ", 200),
        ("", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer größer\udcff", 401),
    ],
)
def test_only_the_token_itself_opens(authorization: str, expected: int) -> None:
    assert status(Access(TOKEN, may_act=True), authorization, is_action=True) == expected


def test_reading_and_acting_are_two_rights() -> None:
    readers = Access(TOKEN)
    assert status(readers, f"Bearer {TOKEN}") == 200
    assert status(readers, f"Bearer {TOKEN}", is_action=True) == 403


def test_without_a_token_nothing_opens() -> None:
    """An empty token in the request opens nothing either."""
    assert status(Access(None), "Bearer ") == 403
    assert status(Access(None), "") == 403


def test_a_token_is_generated_if_none_is_given() -> None:
    tokens = {make_access(None, may_act=True, makes_token=True).token for _ in range(20)}
    assert len(tokens) == 20
    assert all(token is not None and len(token) >= 32 for token in tokens)
    assert make_access(None, may_act=False, makes_token=False).token is None
    assert make_access("", may_act=False, makes_token=False).token is None
    assert make_access(TOKEN, may_act=False, makes_token=True) == Access(TOKEN, may_act=False)


@pytest.mark.parametrize(
    "given", ["short", "fifteen-letters", "with a space in its middle", "größer-als-ascii-erlaubt"]
)
def test_a_token_that_can_be_guessed_is_refused(given: str) -> None:
    with pytest.raises(WeakToken) as raised:
        make_access(given, may_act=True, makes_token=True)
    assert given not in str(raised.value)


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(Access(TOKEN))


@pytest.mark.parametrize(
    ("origin", "fetch_site", "is_denied"),
    [
        (None, None, False),  # no browser
        ("http://runner.local:9090", "same-origin", False),
        (None, "none", False),
        ("http://runner.local", None, True),
        ("http://runner.local:9090.evil.example", None, True),
        ("http://runner.local:9090@evil.example", None, True),
        ("https://evil.example", "cross-site", True),
        ("null", None, True),
        ("http://[", None, True),
        (None, "cross-site", True),
        (None, "same-site", True),
    ],
)
def test_pages_of_other_sites_are_refused(origin: str | None, fetch_site: str | None, is_denied: bool) -> None:
    with pytest.raises(Denied) if is_denied else contextlib.nullcontext():
        check_origin("runner.local:9090", origin, fetch_site)
