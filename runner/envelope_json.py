"""Envelopes as JSON, for files: all of an envelope but its body, with the types that JSON does not have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from runner.message import NO_HEADERS, Envelope, Timestamp, Undecoded


def write_properties(envelope: Envelope, *more: str) -> str:
    """Return all of an envelope but its body as JSON, behind some other texts."""
    _, *properties, headers = envelope
    return json.dumps([*more, *map(_packed, properties), _packed(headers) if headers else None])


def read_properties(text: str, body: bytes, skip: int = 0) -> tuple[Envelope, Sequence[str]]:
    """Return the envelope that `write_properties` was given, and the `skip` texts in front of it."""
    items = json.loads(text)
    *properties, headers = map(_unpacked, items[skip:])
    return Envelope._make((body, *properties, headers or NO_HEADERS)), items[:skip]


def _packed(value: Any) -> Any:
    """Return a property or a header's value as JSON has it. A map says the type of what JSON does not have."""
    match value:
        case None | str():
            return value
        case Timestamp():
            return {"seconds": int(value)}
        case Undecoded():
            return {"undecoded": value.hex()}
        case bytes():
            return {"bytes": value.hex()}
        case datetime():
            return {"time": value.isoformat()}
        case Decimal():
            return {"decimal": str(value)}
        case Mapping():
            return {"map": {name: _packed(item) for name, item in value.items()}}
        case list():
            return [_packed(item) for item in value]
    return value


def _unpacked(value: Any) -> Any:
    match value:
        case {"seconds": number}:
            return Timestamp(number)
        case {"undecoded": text}:
            return Undecoded(bytes.fromhex(text))
        case {"bytes": text}:
            return bytes.fromhex(text)
        case {"time": text}:
            return datetime.fromisoformat(text)
        case {"decimal": text}:
            return Decimal(text)
        case {"map": items}:
            return {name: _unpacked(item) for name, item in items.items()}
        case list():
            return [_unpacked(item) for item in value]
    return value
