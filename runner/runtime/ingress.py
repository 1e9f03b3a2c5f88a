"""Turns HTTP requests into messages: POST a body, get 202 when the broker has confirmed it."""

from __future__ import annotations

import asyncio
from typing import Any

from runner import log
from runner.errors import PublishFailed
from runner.metrics import Totals
from runner.pipeline.model import Producer
from runner.pipeline.payload import JsonText, as_payload
from runner.runtime.publishing import Publisher

CONFIRM_S = 30.0
FULL_QUEUE_PATIENCE_S = 5.0


class Route:
    """One path, and what is published from it."""

    def __init__(self, producer: Producer, pipeline: str, publisher: Publisher, totals: Totals) -> None:
        self._producer = producer
        self._pipeline = pipeline
        self._publisher = publisher
        self._totals = totals
        self._logger = log.get_logger()
        self.path = producer.http_path or "/"

    async def accept(self, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
        """Publish a body and return the status and the answer."""
        with log.bound({"pipeline": self._pipeline, "producer": self._producer.name}):
            try:
                outgoing = self._publisher.address(_payload(body, content_type), self._producer.to)
                async with asyncio.timeout(CONFIRM_S):
                    for item in outgoing:
                        await self._publisher.send(item, patience_s=FULL_QUEUE_PATIENCE_S)
            except TimeoutError:
                return 503, {"error": f"not confirmed within {CONFIRM_S:g} s: it may arrive all the same"}
            except ValueError as error:
                return 422, {"error": str(error)}
            except PublishFailed as failure:
                status = 503 if failure.reason == "refused" else 422
                return status, {"error": str(failure)}
            for item in outgoing:
                self._totals.published += 1
                name, message_id = item.destination.name, item.envelope.message_id
                self._logger.info("message.published", to=name, message_id=message_id)
            return 202, {"ids": [item.envelope.message_id for item in outgoing]}


def _payload(body: bytes, content_type: str) -> Any:
    """Return what a request carries; raises ValueError for a body that is not what its content type says."""
    found = as_payload(body)
    is_json = content_type == "application/json" or content_type.endswith("+json")
    if is_json and not isinstance(found, JsonText):
        raise ValueError("the body is not JSON")
    if content_type.startswith("text/") and isinstance(found, JsonText):
        return found.decode()
    return found
