"""Turns bodies into payloads and payloads into bodies, by functions made once, at start.

JSON is pydantic-core's, which parses faster than the standard library and refuses NaN and runaway nesting.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from runner.errors import PublishFailed
from runner.message import MAX_BODY_BYTES, Envelope
from runner.outcome import InvalidMessage

JSON = "application/json"
TEXT = "text/plain"
BYTES = "application/octet-stream"

_NO_JSON = (str, bytes, bytearray, memoryview)

Decode = Callable[[Envelope], Any]
Encode = Callable[[Any], tuple[bytes, str]]

_PLAIN_ENCODINGS = frozenset({"", "identity", "utf-8", "utf8"})
_MAX_PROBLEMS_SHOWN = 3


def decoder(annotation: Any) -> Decode:
    """Return the function that makes of an envelope what a parameter with this annotation wants.

    Without an annotation (`inspect.Parameter.empty`): JSON if the content type says so, or if there is none and the
    body parses; else text if it is UTF-8; else bytes. It raises InvalidMessage; this function raises what pydantic
    raises for an annotation that it cannot handle.
    """
    if annotation in (inspect.Parameter.empty, Any, object):
        return _guarded(_guess)
    if annotation is bytes:
        return _guarded(lambda envelope: envelope.body)
    if annotation is str:
        return _guarded(_text)
    validate = TypeAdapter(annotation).validator.validate_json
    return _guarded(lambda envelope: validate(envelope.body))


def checked(adapters: dict[str, TypeAdapter[Any]], only: TypeAdapter[Any] | None, decode: Decode) -> Decode:
    """Return `decode`, after the schema of the queue (`only`) or of the message's event has been checked."""

    def check_then_decode(envelope: Envelope) -> Any:
        adapter = only or adapters.get(envelope.type or "")
        if adapter is not None:
            _validate(adapter, envelope)
        return decode(envelope)

    return _guarded(check_then_decode) if adapters or only else decode


class JsonText(bytes):
    """A body that is JSON already, and is published byte for byte."""


def as_payload(body: bytes) -> JsonText | str | bytes:
    """Return foreign bytes as what they look like: JSON, else text, else bytes."""
    try:
        from_json(body, allow_inf_nan=False)
        return JsonText(body)
    except ValueError:
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def why_not_json(body: bytes) -> str:
    """Return why a body is not JSON, without its content; "" for one that is."""
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        return str(error)
    return ""


def encode(payload: Any) -> tuple[bytes, str]:
    """Return the body and the content type of a payload. Raises PublishFailed for what JSON cannot hold."""
    if isinstance(payload, _NO_JSON):
        if isinstance(payload, str):
            return payload.encode("utf-8", "surrogatepass"), TEXT
        return bytes(payload), JSON if isinstance(payload, JsonText) else BYTES
    try:
        return to_json(payload, inf_nan_mode="strings"), JSON
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise PublishFailed(f"the payload cannot be written as JSON: {error}", reason="invalid") from error


def encoder(adapter: TypeAdapter[Any] | None, name: str) -> Encode:
    """Return `encode`, with the payload checked against the schema of the queue or event `name` before it."""
    if adapter is None:
        return encode

    def check_then_encode(payload: Any) -> tuple[bytes, str]:
        try:
            if isinstance(payload, JsonText):
                adapter.validate_json(payload)
                return bytes(payload), JSON
            if isinstance(payload, str | bytes) and _is_valid_json(adapter, payload):
                return (payload.encode() if isinstance(payload, str) else payload), JSON
            adapter.validate_python(payload)
        except ValidationError as error:
            message = f'the payload does not fit the schema of "{name}": {summary(error)}'
            raise PublishFailed(message, reason="invalid") from error
        return encode(payload)

    return check_then_encode


def summary(error: ValidationError) -> str:
    """Return the first few things that are wrong, by field, without the values: they may be secrets."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        f"{'.'.join(str(part) for part in detail['loc']) or 'payload'}: {detail['msg']}"
        for detail in details[:_MAX_PROBLEMS_SHOWN]
    ]
    more = len(details) - len(shown)
    return "; ".join(shown) + (f" (and {more} more)" if more else "")


def key_reader(path: str) -> Callable[[Envelope], Hashable]:
    """Return the function that reads the value at a dotted path of a JSON body.

    Messages that do not have it share one lane; a body that is no JSON has a lane to itself.
    """
    parts = path.split(".")

    def read(envelope: Envelope) -> Hashable:
        try:
            value: Any = from_json(envelope.body)
        except ValueError:
            return object()
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else None
        return value if isinstance(value, str | int | float | bool | None) else repr(value)

    return read


def _guarded(decode: Decode) -> Decode:
    """Turn every way in which a body can be bad into InvalidMessage."""

    def decode_or_refuse(envelope: Envelope) -> Any:
        if len(envelope.body) > MAX_BODY_BYTES:
            raise InvalidMessage(f"the body has {len(envelope.body)} bytes, more than {MAX_BODY_BYTES}", "too-large")
        if envelope.content_encoding and envelope.content_encoding.lower() not in _PLAIN_ENCODINGS:
            raise InvalidMessage(f'content encoding "{envelope.content_encoding}" is not supported')
        try:
            return decode(envelope)
        except ValidationError as error:
            raise InvalidMessage(summary(error)) from error
        except UnicodeDecodeError as error:
            raise InvalidMessage(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
        except (ValueError, RecursionError) as error:
            raise InvalidMessage(f"the body is not JSON: {error}") from error

    return decode_or_refuse


def _guess(envelope: Envelope) -> Any:
    content_type = (envelope.content_type or "").partition(";")[0].strip().lower()
    if _is_json(content_type):
        return from_json(envelope.body, allow_inf_nan=False)
    if not content_type:
        try:
            return from_json(envelope.body, allow_inf_nan=False)
        except ValueError:
            pass
    if content_type == BYTES:
        return envelope.body
    try:
        return envelope.body.decode()
    except UnicodeDecodeError:
        if content_type.startswith("text/"):
            raise
        return envelope.body


def _text(envelope: Envelope) -> str:
    if not _is_json((envelope.content_type or "").partition(";")[0].strip().lower()):
        return envelope.body.decode()
    value = from_json(envelope.body, allow_inf_nan=False)
    return value if isinstance(value, str) else envelope.body.decode()


def _is_json(content_type: str) -> bool:
    return content_type == JSON or content_type.endswith("+json")


def _validate(adapter: TypeAdapter[Any], envelope: Envelope) -> None:
    """Check a body against a schema: as JSON, or as the text it is where the schema is a plain string."""
    try:
        adapter.validate_json(envelope.body)
    except ValidationError:
        if (envelope.content_type or TEXT).startswith("text/"):
            adapter.validate_python(envelope.body.decode())
        else:
            raise


def _is_valid_json(adapter: TypeAdapter[Any], payload: str | bytes) -> bool:
    try:
        adapter.validate_json(payload)
    except ValidationError:
        return False
    return True
