"""Who may do what on the page: anybody counts, the token opens dead letters, and acting must be allowed besides."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from runner.errors import RunnerError

ENV_VARIABLE = "RUNNER_TOKEN"
MIN_TOKEN = 16
"""A token is compared as often as somebody asks: it must be too long to be guessed."""


class WeakToken(RunnerError):
    """The token from the environment can be guessed, or cannot travel in a header."""

    exit_code = 2


class Denied(Exception):
    """A request is not answered; `status` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Access:
    """The token that opens dead letters, None where there is none, and whether it also lets act on them."""

    token: str | None = field(default=None, repr=False)
    may_act: bool = False
    is_new: bool = False
    """Whether the token was made here, and has to be printed."""

    def shown(self, url: str) -> str:
        """Return the page's URL as the operator is told it."""
        return f"{url}#token={self.token}" if self.is_new else url

    def check(self, authorization: str, *, is_action: bool) -> None:
        """Raise Denied unless the header `Authorization` has the token, and may do this."""
        scheme, _, given = authorization.partition(" ")
        if self.token is None:
            raise Denied(403, f"there is no token: set {ENV_VARIABLE}, or start with --allow-actions")
        if not authorization:
            raise Denied(401, "this needs the token")
        # Bytes, because texts that are not ASCII cannot be compared in constant time.
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self.token.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise Denied(401, "this is not the token; a runner that was started again may have a new one")
        if is_action and not self.may_act:
            raise Denied(403, "actions are not allowed here: start with --allow-actions")


def make_access(given: str | None, *, may_act: bool, makes_token: bool) -> Access:
    """Return what the environment and the command line say. Without a token, one is made if `makes_token`.

    Raises WeakToken.
    """
    if given:
        if len(given) < MIN_TOKEN or not (given.isascii() and given.isprintable() and " " not in given):
            text = f"{ENV_VARIABLE} must have at least {MIN_TOKEN} characters, all of them ASCII and without spaces"
            raise WeakToken(text, 'make one: python3 -c "import secrets; print(secrets.token_urlsafe())"')
        return Access(given, may_act)
    return Access(secrets.token_urlsafe(24), may_act, is_new=True) if makes_token else Access(None, may_act)


def check_origin(host: str, origin: str | None, fetch_site: str | None) -> None:
    """Raise Denied where a browser says that another site's page has made a request."""
    if fetch_site not in (None, "same-origin", "none") or (origin is not None and _host_of(origin) != host):
        raise Denied(403, "only the page itself may ask this")


def _host_of(url: str) -> str:
    """Return the host and port of a URL; "" of what is none."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""
