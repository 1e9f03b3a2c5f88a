"""A producer with `http:`: turns POST requests into messages. The response is 202 once the broker has confirmed them.

With `reply: true` a request is a call, and its response the answer of the handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from runner import log
from runner.errors import CallFailed, NoAnswer, PublishFailed, PublishUnknown
from runner.message import NO_HEADERS, Publish
from runner.metrics import ProducerCounts
from runner.pipeline.codec import JsonText, guess_payload
from runner.pipeline.data_errors import json_error
from runner.pipeline.model import Producer
from runner.runtime.idempotency import HEADER, Idempotency, Response, read_key
from runner.runtime.message_lines import LineFilter
from runner.runtime.publisher import OutgoingMessage, PipelinePublisher
from runner.trace_context import trace_fields, trace_headers
from runner.units import format_duration

FULL_QUEUE_TIMEOUT_S = 5.0
"""How long a message is offered to a full queue before the request fails. Limited by the producer's timeout, too."""


MESSAGE_HEADERS: Mapping[str, str] = {
    "Message-Id": "id",
    "Message-Delay": "delay",
    "Message-Expires": "expires",
    "Message-Priority": "priority",
}
"""The headers of a request that are options of its message: the arguments of `Publish`."""


_CURLS_OWN = "application/x-www-form-urlencoded"
"""The type that curl gives to each body of `-d`. A form never begins with a bracket: it writes %7B and %5B."""


class HttpProducer:
    """One path of the HTTP server and the producer behind it."""

    def __init__(
        self,
        producer: Producer,
        pipeline: str,
        publisher: PipelinePublisher,
        counts: ProducerCounts,
        has_line: LineFilter,
        idempotency: Idempotency,
    ) -> None:
        self._producer = producer
        self._pipeline = pipeline
        self._publisher = publisher.counting(counts.published)
        self._has_line = has_line
        self._idempotency = idempotency
        self._logger = log.get_logger()
        self.path = producer.http_path or "/"

    async def accept(self, body: bytes, content_type: str, headers: Mapping[str, str] = NO_HEADERS) -> Response:
        """Publish the body and return the HTTP status and the response: JSON, or the answer to a call.

        `headers` are those of the request that are in `TRACE_HEADERS`, `MESSAGE_HEADERS` or `HEADER`. With an
        Idempotency-Key, that is the id of the message, and a repeated request gets the first answer. Without a
        connection to the broker it answers 503 at once, so that the client can try another instance.
        """
        if HEADER not in headers:
            return await self._accept(body, content_type, headers)
        try:
            key = read_key(headers[HEADER])
        except ValueError as error:
            return 400, {"error": str(error)}
        work = partial(self._accept, body, content_type, {"Message-Id": key, **headers})
        return await self._idempotency.answer(key, body, work)

    async def _accept(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> Response:
        trace = trace_headers(headers)
        with log.bound_context({"pipeline": self._pipeline, "producer": self._producer.name, **trace_fields(trace)}):
            try:
                outgoing = self._messages_of(body, content_type, headers, trace)
            except (ValueError, PublishFailed) as error:
                return 422, {"error": str(error)}
            if not self._publisher.can_publish:
                return 503, {"error": "the broker takes no messages now: nothing was published"}
            if self._producer.is_call:
                return await self._call(outgoing[0])
            try:
                async with asyncio.timeout(self._producer.http_timeout_s):
                    published = [await self._publish(item) for item in outgoing]
            except TimeoutError:
                waited = format_duration(self._producer.http_timeout_s)
                return 503, {"error": f"not confirmed within {waited}: it may arrive all the same"}
            except PublishUnknown:
                return 503, {"error": "the broker was lost before it confirmed the message: it may arrive all the same"}
            except PublishFailed as failure:
                return 503 if failure.reason == "refused" else 422, {"error": str(failure)}
            for item in published:
                self._log(item)
            return 202, {"ids": [item.envelope.message_id for item in outgoing]}

    async def _call(self, question: OutgoingMessage) -> Response:
        """Ask, and return the HTTP status and the answer, or why there is none."""
        try:
            answer = await self._publisher.call(question, self._producer.http_timeout_s)
        except PublishFailed as failure:
            return 422 if failure.reason == "invalid" else 503, {"error": str(failure)}
        except NoAnswer as missing:
            return 504 if missing.reason == "timeout" else 503, {"error": f"{missing}: {missing.hint}"}
        except CallFailed as failed:
            about = {"error": failed.error, "error_type": failed.error_type, "reason": failed.reason}
            return 422 if failed.reason in ("invalid", "too-large") else 500, about
        self._log(question)
        return 200, answer

    def _log(self, item: OutgoingMessage) -> None:
        if self._has_line(item.envelope):
            about = {"message_id": item.envelope.message_id, **trace_fields(item.envelope.headers)}
            self._logger.info("message.published", to=item.destination.name, **about)

    async def _publish(self, item: OutgoingMessage) -> OutgoingMessage:
        """Publish a message and return it as it was sent."""
        full_queue_timeout_s = min(FULL_QUEUE_TIMEOUT_S, self._producer.http_timeout_s)
        with self._publisher.publication(item) as sent:
            await self._publisher.publish(sent, full_queue_timeout_s=full_queue_timeout_s, waits_for_broker=False)
        return sent

    def _messages_of(
        self, body: bytes, content_type: str, headers: Mapping[str, str], trace: Mapping[str, str]
    ) -> list[OutgoingMessage]:
        """Return the messages for a body. Raises ValueError or PublishFailed that say what is wrong with it."""
        payload = _parse_body(body, content_type)
        options = {option: headers[name] for name, option in MESSAGE_HEADERS.items() if name in headers}
        try:
            return self._publisher.prepare([_with_options(payload, options)], self._producer.to, trace=trace)
        except PublishFailed as failure:
            if isinstance(payload, JsonText) or not (why := json_error(body)):
                raise
            as_text = f"; as text, {failure}" if content_type.startswith("text/") else ""
            raise ValueError(f"the body is not JSON: {why}{as_text}") from failure


def _with_options(payload: Any, options: Mapping[str, Any]) -> Any:
    """Return a payload with the options of its request. Raises ValueError for a wrong one."""
    if not options:
        return payload
    priority = options.get("priority", "")
    if priority.isdecimal() and priority.isascii():
        options = {**options, "priority": int(priority)}
    try:
        return Publish(payload, **options)
    except ValueError as error:
        raise ValueError(f"Message-{str(error).capitalize()}") from None


def _parse_body(body: bytes, content_type: str) -> Any:
    """Return the payload of a request. Raises ValueError for a body that does not match its content type."""
    found = guess_payload(body)
    is_json = content_type == "application/json" or content_type.endswith("+json")
    if is_json and not isinstance(found, JsonText):
        raise ValueError(f"the body is not JSON: {json_error(body)}")
    if content_type == _CURLS_OWN and body.lstrip()[:1] in (b"{", b"[") and not isinstance(found, JsonText):
        raise ValueError(f"the body is not JSON: {json_error(body)}; send text as text/plain")
    if content_type.startswith("text/") and isinstance(found, JsonText):
        return found.decode()
    return found
