"""Contract: the addresses of direct replies, which a client sends as the `reply_to` of its request.

The broker writes one of its own processes into the address. An address with anything else in that place ends every
connection that publishes to it with an internal error (measured with 3.10).
Source: https://www.rabbitmq.com/docs/direct-reply-to
"""

from __future__ import annotations

import base64
import binascii

from runner.message import Address

PREFIX = "amq.rabbitmq.reply-to."

_SHORT_NAMES, _LONG_NAMES = (115, 119), (100, 118)
_IDS = {88: 12, 103: 9}
"""How many bytes follow the node's name, by the tag of the term (NEW_PID_EXT, PID_EXT)."""


def is_direct_reply(address: Address) -> bool:
    """Return whether this is the address of a client that waits for a direct reply."""
    return not address.exchange and address.key.startswith(PREFIX)


def is_answerable(address: str) -> bool:
    """Return whether a `reply_to` can be published to without harm. A forged direct reply address cannot."""
    try:
        address.encode()
    except UnicodeEncodeError:  # what a client sent in another encoding than UTF-8
        return False
    if not address.startswith(PREFIX):
        return bool(address)
    process, _, key = address.removeprefix(PREFIX).partition(".")
    try:
        term = base64.b64decode(process, validate=True)
    except (binascii.Error, ValueError):
        return False
    return bool(key) and "." not in key and _is_process(term)


def _is_process(term: bytes) -> bool:
    """Return whether this is a process in Erlang's external term format.

    Source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
    """
    if len(term) < 5 or term[0] != 131 or term[1] not in _IDS:
        return False
    if term[2] in _SHORT_NAMES:
        name = 4 + term[3]
    elif term[2] in _LONG_NAMES:
        name = 5 + int.from_bytes(term[3:5], "big")
    else:
        return False
    return len(term) == name + _IDS[term[1]] and b"@" in term[3:name]
