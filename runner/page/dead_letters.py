"""The page's requests about dead letters and pauses. Requests and answers are plain JSON; requests are not trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runner.clock import utc_now
from runner.message import TRACEBACK
from runner.operations.dead_letter_json import body_lines, details_to_json
from runner.operations.dead_letter_ops import DeadLetterOps, Summary
from runner.operations.dead_letters import DeadLetterFilter, DeadLetterMessage, SelectedQueue, select_dead_letter_queues
from runner.operations.local_replay import LocalReplay, NoSubscriber
from runner.operations.pausing import pause, resume
from runner.page.access import Denied
from runner.page.broker_view import BrokerView
from runner.pipeline.model import Pipeline

MAX_LOOKED = 1000
"""Maximum number of messages of a queue that are read to group them: each leaves the queue for a moment."""

MAX_LETTERS = 50
"""Maximum number of messages that are listed in a group."""

FACTS = (
    *("dead_letter", "queue", "reason", "by", "error_type", "error", "attempts", "since", "replays"),
    *("subscriber", "host", "release", "event", "exchange", "routing_key", "correlation_id", "app_id", "timestamp"),
    *("content_type", "content_encoding", "reply_to", "priority"),
)
"""The keys of `dead show --json` that an opened message lists; headers, body and traceback have their own sections."""

MAX_TRIED = 20
TRY_S = 60.0
"""Time limit of one request to try messages, for all of its messages together."""


@dataclass
class Group:
    """Dead letters of one queue that failed in the same way."""

    origin: str | None
    reason: str
    error_type: str
    count: int = 0
    newest_s: float | None = None
    letters: list[dict[str, Any]] = field(default_factory=list)

    def add(self, letter: DeadLetterMessage, now: datetime) -> None:
        """Add a dead letter."""
        age_s = letter.age_s(now)
        self.count += 1
        self.newest_s = min((age for age in (age_s, self.newest_s) if age is not None), default=None)
        if len(self.letters) < MAX_LETTERS:
            shown = {"id": letter.id, "error": letter.error, "age_s": age_s, "replays": letter.replays}
            self.letters.append(shown)

    def as_json(self) -> dict[str, Any]:
        """Return the group as plain JSON data."""
        return vars(self).copy()


class DeadLetterDesk:
    """Lists, opens, tries, replays and drops dead letters. It handles one request at a time."""

    def __init__(self, pipelines: Sequence[Pipeline], broker: BrokerView) -> None:
        self._pipelines = pipelines
        self._broker = broker
        self._one_at_a_time = asyncio.Lock()
        self._trying = asyncio.Lock()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Stop a running request after its current message."""
        self._stop.set()

    async def groups(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return the dead letters of one queue, grouped by how they failed, the largest group first."""
        groups: dict[tuple[str | None, str, str], Group] = {}
        now = utc_now()

        def add(letter: DeadLetterMessage) -> None:
            key = letter.origin, letter.reason, letter.error_type
            groups.setdefault(key, Group(*key)).add(letter, now)

        choices, _ = self._selected({**about, "ids": None, "reason": None}, needs_filter=False)
        summary = await self._work(DeadLetterFilter(), MAX_LOOKED, lambda ops: ops.find(choices, add))
        ordered = sorted(groups.values(), key=lambda group: -group.count)
        return {"total": summary.total, "looked": summary.looked, "groups": [group.as_json() for group in ordered]}

    async def open(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return one dead letter in full. Raises Denied if it is no longer in the queue."""
        (letter,) = await self._find({"queue": about.get("queue"), "ids": [about.get("id")]}, 1)
        details = details_to_json(letter, utc_now())
        headers = {name: str(value) for name, value in details["headers"].items() if name != TRACEBACK}
        facts = {name: details[name] for name in FACTS if details[name] not in (None, "")}
        if letter.origin is None and letter.claimed:
            facts["claimed_queue"] = letter.claimed
        body = "\n".join(body_lines(letter.envelope))
        return {"facts": facts, "headers": headers, "body": body, "size": letter.size, "traceback": letter.traceback}

    async def replay(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Replay dead letters to the queue in which they failed; return how many moved, and why others stayed."""
        choices, filters = self._selected(about)
        return _summary_to_json(await self._work(filters, len(filters.ids), lambda ops: ops.replay(choices)))

    async def drop(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Delete dead letters."""
        choices, filters = self._selected(about)
        return _summary_to_json(await self._work(filters, len(filters.ids), lambda ops: ops.drop(choices)))

    async def attempt(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Call this process's handlers with copies of dead letters; the broker does not change."""
        letters = await self._find(about, MAX_TRIED)
        async with self._trying, LocalReplay(self._pipelines) as replay:
            try:
                async with asyncio.timeout(TRY_S):
                    return {"results": [await _try_one(replay, letter) for letter in letters]}
            except TimeoutError:
                raise Denied(504, f"the handler did not end within {TRY_S:g} s, and was cancelled") from None

    async def _find(self, about: Mapping[str, Any], limit: int) -> list[DeadLetterMessage]:
        choices, filters = self._selected(about)
        found: list[DeadLetterMessage] = []
        await self._work(filters, limit, lambda ops: ops.find(choices, found.append))
        if not found:
            raise Denied(404, "the message is no longer in the queue")
        return found

    async def _work(
        self, filters: DeadLetterFilter, limit: int, work: Callable[[DeadLetterOps], Awaitable[Summary]]
    ) -> Summary:
        """Run `work` on at most `limit` dead letters; 0 means all."""
        async with self._one_at_a_time:
            try:
                return await work(
                    DeadLetterOps(await self._broker.access(), filters, limit or None, utc_now, self._stop)
                )
            finally:
                self._broker.refresh_soon()

    def _selected(
        self, about: Mapping[str, Any], *, needs_filter: bool = True
    ) -> tuple[list[SelectedQueue], DeadLetterFilter]:
        """Return the dead letters that a request selects. Raises Denied if the request is invalid, and UnknownPlace."""
        queue, ids = about.get("queue"), about.get("ids")
        origin, reason, error_type = about.get("origin"), about.get("reason"), about.get("error_type")
        if not isinstance(queue, str):
            raise Denied(400, "the request names no queue")
        choices = select_dead_letter_queues(self._pipelines, queue)
        if isinstance(ids, list) and ids and all(isinstance(each, str) for each in ids):
            return choices, DeadLetterFilter(frozenset(ids))
        if isinstance(origin, str) and isinstance(reason, str) and isinstance(error_type, str):
            chosen = [SelectedQueue(dlq, origin) for dlq, _ in choices]
            return chosen, DeadLetterFilter(failure=(reason, error_type))
        if needs_filter:
            raise Denied(400, "it is not said which dead letters are meant")
        return choices, DeadLetterFilter()


async def _try_one(replay: LocalReplay, letter: DeadLetterMessage) -> dict[str, Any]:
    try:
        result = await replay.attempt(letter)
    except NoSubscriber as error:
        return {"id": letter.id, "outcome": "not-tried", "text": f"not tried: {error}", "traceback": ""}
    return {"id": letter.id, "outcome": result.name, "text": result.sentence, "traceback": result.traceback}


def _summary_to_json(summary: Summary) -> dict[str, Any]:
    return {
        "matched": summary.matched,
        "moved": summary.moved,
        "stayed": dict(summary.stayed),
        "unseen": summary.unseen,
    }


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
