"""Checked URLs of stores."""

from __future__ import annotations

import re

SQLITE = "sqlite:"
REDIS = ("redis://", "rediss://")

_URL = re.compile(r"rediss?://([^\s/?#@]*:[^\s/?#@]+@)?(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:(?P<port>\d{1,5}))?(/\d*)?")


def store_url_problem(url: str) -> str:
    """Return why a URL is not one of a store, "" if it is. The text never shows a password."""
    if url.startswith(SQLITE):
        path = url.removeprefix(SQLITE)
        is_wrong = not path or path.startswith("//") or "\0" in path
        return "sqlite: is followed by the path of a file, as in sqlite:data/seen.db" if is_wrong else ""
    if not url.startswith(REDIS):
        return "the URL of a store starts with sqlite:, redis:// or rediss://"
    found = _URL.fullmatch(url)
    if found is None or int(found["port"] or 1) not in range(1, 65_536):
        return "the URL has one host, and at most a user and password, a port, and the number of a database"
    return ""


def store_url_meant(url: str) -> str:
    """Return the URL of a store that a path, or a URL as other libraries write it, means; "" for others."""
    if match := re.fullmatch(
        r"(?:sqlite3?|file)(?:\+\w+)?:(?:/{0,3}(?=[^/])|///(?=/))(.+)|(?![\w+]+:)(.+\.(?:db|sqlite3?))", url
    ):
        return f"{SQLITE}{match[1] or match[2]}"
    address = re.sub(r"^redis:/*", "", url)
    meant = re.sub(r"\?db=(?=\d+$)", "/", f"redis://{address}") if url != f"redis://{address}" or "?" in url else ""
    is_redis = url.startswith("redis:") or re.search(r":6379\b", url)
    return meant if meant and is_redis and "@" not in url and not store_url_problem(meant) else ""
