"""Decodes bodies into payloads and encodes payloads, with functions that are made once at the start.

pydantic-core parses JSON: it is faster than the standard library, and refuses NaN and excessive nesting.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from runner.config.messages import texts
from runner.errors import PublishFailed
from runner.message import MAX_BODY_BYTES, Envelope
from runner.outcome import InvalidMessage
from runner.pipeline.body_encoding import BYTES, JSON, TEXT, content_type, plain_bytes, uncompressed, utf8, without_mark
from runner.pipeline.data_errors import json_error, validation_errors
from runner.pipeline.secret_values import MASK, may_hold_secrets, reveal_secrets
from runner.tables import filled

T = TypeVar("T")

_STAR, _N, _I = b"*NI"
"""Searched in every body, because secrets are masked with stars, and for NaN and infinities. `in` is fastest with an
integer.
"""

_NO_JSON = (str, bytes, bytearray, memoryview)

Decode = Callable[[Envelope], Any]
Check = Callable[[Envelope, str | None], None]
Encode = Callable[[Any], tuple[bytes, str]]
Read = Callable[[bytes, str], tuple[Any, str]]


def reader(adapter: TypeAdapter[Any]) -> Read:
    """Return the function that parses a body as a type, and returns its content type: JSON, text or bytes.

    Its arguments are the UTF-8 of a body and its media type ("" for none). Schemas are checked with it before
    publishing and on arrival, and handlers get their payloads from it. JSON is parsed as JSON. Text and bytes are
    passed to the type unchanged if it accepts them, else parsed as JSON, else converted, for example to a date. Raises
    ValidationError.
    """
    validate_json, validate = adapter.validator.validate_json, adapter.validator.validate_python

    def read(body: bytes, media: str) -> tuple[Any, str]:
        if media == JSON or media.endswith("+json"):
            return validate_json(body), JSON
        raw, kind = _raw(body, media)
        if media:
            try:
                return validate(raw, strict=True), kind
            except ValidationError:
                pass
        try:
            return validate_json(body), JSON
        except ValidationError:
            if kind != TEXT and media:
                raise
            try:
                return validate(raw), kind
            except ValidationError:
                pass
            raise

    return read


def decoder(annotation: Any) -> Decode:
    """Return the function that decodes an envelope for a parameter with this annotation.

    Without an annotation (`inspect.Parameter.empty`), the payload is JSON if the content type says so, or if there is
    none and the body is valid JSON; else text if it is UTF-8; else bytes. `bytes` gets the uncompressed body. The
    returned function raises InvalidMessage. This function raises pydantic's error for an annotation that it does not
    support.
    """
    if annotation in (inspect.Parameter.empty, Any, object):
        return _guarded(_guess, partial(from_json, allow_inf_nan=False))
    if annotation is bytes:
        return _guarded(plain_bytes)
    if annotation is str:
        return _guarded(_text)
    adapter = TypeAdapter(annotation)
    read, validate_json = reader(adapter), adapter.validator.validate_json

    def decode(envelope: Envelope) -> Any:
        return read(utf8(envelope), content_type(envelope.content_type).media)[0]

    return _guarded(decode, validate_json, adapter)


def checker(adapters: Mapping[str, TypeAdapter[Any]], only: TypeAdapter[Any] | None) -> Check:
    """Return the function that checks a body against the schema of its queue (`only`) or of its event.

    It raises InvalidMessage.
    """
    readers = {name: reader(adapter) for name, adapter in adapters.items()}
    one = reader(only) if only is not None else None

    def check(envelope: Envelope, event: str | None) -> None:
        read = one or readers.get(event or "")
        if read is not None:
            read(utf8(envelope), content_type(envelope.content_type).media)

    return _guarded(check, adapter=only)


class JsonText(bytes):
    """A body that is JSON already, and is published unchanged."""


def guess_payload(body: bytes) -> JsonText | str | bytes:
    """Return bytes of unknown type as JSON, else as text, else as bytes; without a byte order mark of UTF-8."""
    plain = without_mark(body)
    try:
        from_json(plain, allow_inf_nan=False)
        return JsonText(plain)
    except ValueError:
        pass
    try:
        return plain.decode()
    except UnicodeDecodeError:
        return body


def encode(payload: Any) -> tuple[bytes, str]:
    """Return the body and the content type of a payload. Raises PublishFailed if JSON cannot represent it."""
    try:
        if type(payload) is dict or not isinstance(payload, _NO_JSON):
            body = to_json(payload, inf_nan_mode="strings")
            if (_N in body and b'"NaN"' in body) or (_I in body and b'Infinity"' in body):
                _refuse_nan(payload)
            if (_STAR in body and MASK in body) or (type(payload) is not dict and may_hold_secrets(payload)):
                body = reveal_secrets(payload, body)
            return body, JSON
        if isinstance(payload, str):
            return payload.encode(), TEXT
        return bytes(payload), JSON if isinstance(payload, JsonText) else BYTES
    except UnicodeEncodeError as error:
        raise PublishFailed(f"the payload is not valid Unicode: {error.reason}", reason="invalid") from error
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise _unwritable(payload, error) from error


def encoder(adapter: TypeAdapter[Any] | None, name: str) -> Encode:
    """Return `encode` with a check of the body against the schema of the queue or event `name`, as on arrival.

    Text and bytes that the schema accepts only as JSON are published as JSON. A payload that the schema would read as
    another value is refused, such as bytes that are written as base64 and not read back.
    """
    if adapter is None:
        return encode
    read = reader(adapter)

    def encode_and_check(payload: Any) -> tuple[bytes, str]:
        body, kind = encode(payload)
        try:
            value, kind = read(body, kind)
        except ValidationError as error:
            message = f'the payload does not fit the schema of "{name}": {_why_invalid(error, body, adapter=adapter)}'
            raise PublishFailed(message, reason="invalid") from error
        if type(value) is type(payload) and not _is_equal(value, payload) and encode(value)[0] != body:
            message = f'the payload would arrive as another value: the schema of "{name}" does not read what it writes'
            raise PublishFailed(message, reason="invalid")
        return body, kind

    return encode_and_check


def _unwritable(payload: Any, error: Exception, place: str = "") -> PublishFailed:
    """Return the error of a payload that JSON cannot represent, with the place of the value in dicts and lists."""
    if isinstance(payload, BaseException):
        name = type(payload).__name__
        message = f"the result is the exception {name}, which is not raised"
        return PublishFailed(message, reason="invalid", hint=f"write `raise {name}(…)` in place of `return {name}(…)`")
    text = str(error)
    for inside, value in _items(payload, place) if "Circular" not in text else ():
        try:
            to_json(value)
        except Exception as found:  # serializers are the user's code and may raise anything
            return _unwritable(value, found, inside)
    for pattern, (why, hint) in texts("result").items():
        if match := re.search(pattern, text):
            words = {"at": f' at "{place}"' if place else "", **match.groupdict()}
            return PublishFailed(filled(why, words), reason="invalid", hint=hint)
    return PublishFailed(f"the payload cannot be written as JSON: {text}", reason="invalid")


def _items(payload: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the values in a dict or a list with their places."""
    items = payload.items() if isinstance(payload, dict) else enumerate(payload) if isinstance(payload, list) else ()
    for key, value in items:
        yield f"{place}.{key}" if place else str(key), value


def _refuse_nan(payload: Any, place: str = "") -> None:
    """Raise PublishFailed for a NaN or an infinity in dicts and lists: it would arrive as text.

    A model writes and reads them as text.
    """
    if isinstance(payload, float) and not math.isfinite(payload):
        at = f' at "{place}"' if place else ""
        raise PublishFailed(f"the payload has {payload}{at}, which JSON does not know", reason="invalid")
    for inside, value in _items(payload, place):
        _refuse_nan(value, inside)


def _why_invalid(
    error: ValidationError, body: bytes, *, shows_values: bool = False, adapter: TypeAdapter[Any] | None = None
) -> str:
    if any(detail["type"] == "json_invalid" and not detail["loc"] for detail in error.errors(include_url=False)):
        return f"the body is not JSON: {json_error(body)}"
    return validation_errors(error, shows_values=shows_values, adapter=adapter)


def with_values(failure: PublishFailed, body: bytes) -> str:
    """Return the message of a payload that does not fit its schema with the values that do not fit."""
    if not isinstance(failure.__cause__, ValidationError):
        return str(failure)
    plain, full = (_why_invalid(failure.__cause__, body, shows_values=shows) for shows in (False, True))
    return str(failure).replace(plain, full)


def key_reader(path: str) -> Callable[[Envelope], Hashable]:
    """Return the function that reads the value at a dotted path of a JSON body.

    Messages without it have the same key. A body that is not JSON has a key of its own.
    """

    def read(envelope: Envelope) -> Hashable:
        try:
            value = value_at(envelope, path)
        except LookupError:
            return None
        except (ValueError, InvalidMessage):
            return object()
        return value if isinstance(value, str | int | float | bool | None) else repr(value)

    return read


def identity_reader(path: str) -> Callable[[Envelope], bytes]:
    """Return the function that reads the JSON of the value at a dotted path. It raises InvalidMessage without one."""

    def read(envelope: Envelope) -> bytes:
        with suppress(LookupError):
            if (value := value_at(envelope, path)) is not None:
                return json.dumps(value, sort_keys=True).encode()
        raise InvalidMessage(f'the payload has nothing at "{path}", the key of dedupe')

    return _guarded(read)


def value_at(envelope: Envelope, path: str) -> Any:
    """Return the value at a dotted path of a JSON body, as in `customer.id` or `items.0.sku`.

    Raises LookupError if there is none, and ValueError or InvalidMessage if the body is not JSON.
    """
    value: Any = from_json(utf8(envelope))
    for part in path.split("."):
        if isinstance(value, list) and part.isdecimal():
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value[part]
        else:
            raise LookupError(path)
    return value


def _guarded(
    work: Callable[..., T], parse: Callable[[bytes], T] | None = None, adapter: TypeAdapter[Any] | None = None
) -> Callable[..., T]:
    """Return a function that raises InvalidMessage for every kind of bad body.

    `parse` does the same as `work` with plain JSON, which nearly all bodies are; `adapter` is the one that both use.
    """

    def work_or_refuse(envelope: Envelope, *rest: Any) -> T:
        body = envelope.body
        if len(body) > MAX_BODY_BYTES:
            raise InvalidMessage(f"the body has {len(body)} bytes, more than {MAX_BODY_BYTES}", "too-large")
        try:
            if parse is not None and envelope.content_type == JSON and not envelope.content_encoding:
                return parse(body if body[:1] != b"\xef" else without_mark(body))
            return work(envelope, *rest)
        except ValidationError as error:
            raise InvalidMessage(_why_invalid(error, envelope.body, adapter=adapter)) from error
        except UnicodeDecodeError as error:
            text = f"the body is not {error.encoding.upper()}: {error.reason} at byte {error.start}"
            raise InvalidMessage(text) from error
        except (ValueError, RecursionError) as error:
            why = json_error(envelope.body) or str(error)
            raise InvalidMessage(f"the body is not JSON: {why}") from error

    return work_or_refuse


def _guess(envelope: Envelope) -> Any:
    kind = content_type(envelope.content_type)
    if kind.is_json:
        return from_json(utf8(envelope), allow_inf_nan=False)
    if not kind.media:
        try:
            return from_json(utf8(envelope), allow_inf_nan=False)
        except ValueError:
            pass
    if kind.media == BYTES:
        return uncompressed(envelope)
    try:
        return utf8(envelope).decode()
    except UnicodeDecodeError:
        if kind.is_text:
            raise
        return uncompressed(envelope)


def _is_equal(value: Any, other: Any) -> bool:
    try:
        return bool(value == other)
    except Exception:  # the comparison runs the user's code
        return False


def _text(envelope: Envelope) -> str:
    body = utf8(envelope)
    if envelope.content_type == TEXT or not content_type(envelope.content_type).is_json:
        return body.decode()
    value = from_json(body, allow_inf_nan=False)
    return value if isinstance(value, str) else body.decode()


def _raw(body: bytes, media: str) -> tuple[str | bytes, str]:
    """Return a body that is not declared as JSON as text or bytes, with its content type."""
    if media.startswith("text/"):
        return body.decode(), TEXT
    if not media:
        try:
            return body.decode(), TEXT
        except UnicodeDecodeError:
            pass
    return body, BYTES
