"""Access control of the page: counts are public, dead letters need the token, actions need `--allow-actions`, too."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from runner.errors import InvalidUsage

ENV_VARIABLE = "RUNNER_TOKEN"
MIN_TOKEN = 16
"""Minimum length of a token. Failed attempts are not limited, so the token must be too long to guess."""


class WeakToken(InvalidUsage):
    """The token from the environment is too short, or has characters that a header cannot carry."""


class Denied(Exception):
    """A request that the page refuses. `status` is the HTTP status of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Access:
    """The token that opens dead letters, or None, and whether it also allows actions on them."""

    token: str | None = field(default=None, repr=False)
    may_act: bool = False
    is_new: bool = False
    """Whether the runner generated the token, so that it must print it."""

    def shown(self, url: str) -> str:
        """Return the page's URL to print, with the token if it is a new one."""
        return f"{url}#token={self.token}" if self.is_new else url

    def check(self, authorization: str, *, is_action: bool) -> None:
        """Raise Denied unless the header `Authorization` has the token, and an action is allowed."""
        scheme, _, given = authorization.partition(" ")
        if self.token is None:
            raise Denied(403, f"there is no token: set {ENV_VARIABLE}, or start with --allow-actions")
        if not authorization:
            raise Denied(401, "this request needs the token")
        # compare_digest takes only ASCII in texts, so bytes are compared.
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self.token.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise Denied(401, "the token is wrong; a runner that was restarted may have a new one")
        if is_action and not self.may_act:
            raise Denied(403, "actions are not allowed here: start with --allow-actions")


def make_access(given: str | None, *, may_act: bool, makes_token: bool) -> Access:
    """Return the access that the environment and the command line give.

    If `given` is empty and `makes_token` is true, a new token is generated. Raises WeakToken.
    """
    if given:
        if len(given) < MIN_TOKEN or not (given.isascii() and given.isprintable() and " " not in given):
            text = f"{ENV_VARIABLE} must have at least {MIN_TOKEN} characters, all of them ASCII and without spaces"
            raise WeakToken(text, 'make one: python3 -c "import secrets; print(secrets.token_urlsafe())"')
        return Access(given, may_act)
    return Access(secrets.token_urlsafe(24), may_act, is_new=True) if makes_token else Access(None, may_act)


def check_origin(host: str, origin: str | None, fetch_site: str | None) -> None:
    """Raise Denied if the browser says that a page of another site made the request."""
    if fetch_site not in (None, "same-origin", "none") or (origin is not None and _host_of(origin) != host):
        raise Denied(403, "only the page itself may send this request")


def _host_of(url: str) -> str:
    """Return the host and port of a URL; "" if the URL is invalid."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""
