"""The page's requests to pause and resume subscribers. Requests are not trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.clock import utc_now
from runner.operations.pausing import pause, resume
from runner.page.access import Denied
from runner.page.broker_view import BrokerView
from runner.pipeline.model import Pipeline


class PauseDesk:
    """Pauses and resumes subscribers for all processes."""

    def __init__(self, pipelines: Sequence[Pipeline], broker: BrokerView) -> None:
        self._names = {(pipeline.name, each.name) for pipeline in pipelines for each in pipeline.subscribers}
        self._broker = broker

    async def pause(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Pause a subscriber, with a reason. Raises Denied if the request is invalid."""
        pipeline, name = self._subscriber(about)
        reason = about.get("reason", "")
        if not isinstance(reason, str):
            raise Denied(400, "the reason is not a text")
        made = await pause(await self._broker.access(), pipeline, name, reason, utc_now())
        self._broker.refresh_soon()
        return {"text": f"{name} is {made.text}"}

    async def resume(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Resume a subscriber. Raises Denied if the request is invalid."""
        pipeline, name = self._subscriber(about)
        ended = await resume(await self._broker.access(), pipeline, name)
        self._broker.refresh_soon()
        return {"text": ended}

    def _subscriber(self, about: Mapping[str, Any]) -> tuple[str, str]:
        pipeline, name = about.get("pipeline"), about.get("name")
        if not isinstance(pipeline, str) or not isinstance(name, str) or (pipeline, name) not in self._names:
            raise Denied(404, "there is no such subscriber here")
        return pipeline, name
