"""Reads the state of a running process over HTTP for `runner status`, from the source of its page.

The process knows values that RabbitMQ does not: failed attempts, pauses, and the age of messages in quorum queues. The
state of an in-process broker is known only to its process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from runner.errors import RunnerError
from runner.operations.status import PipelineStatus, QueueStatus, RunningProcess
from runner.transports.pauses import Pause
from runner.units import LOOPBACK_OF, format_address

ANSWER_S = 3.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
SECOND_READ_S = 1.1
"""Time before a second read, if the first one has no rates: rates need two samples."""

State = Mapping[str, Any]


class ProcessSilent(RunnerError):
    """No process of these pipelines answers at the address."""

    exit_code = 69


class ProcessReader:
    """Client of the process at an address. For 0.0.0.0 and [::] it connects to the loopback address."""

    def __init__(self, address: tuple[str, int], names: Sequence[str]) -> None:
        host, port = address
        self.shown = format_address(LOOPBACK_OF.get(host, host), port)
        self._names = names

    async def ask(self) -> State:
        """Return the state of the process. Raises ProcessSilent."""
        state = await asyncio.to_thread(self._read)
        if not any(row["rate"] is not None for row in state["subscribers"]):
            await asyncio.sleep(SECOND_READ_S)
            state = await asyncio.to_thread(self._read)
        return state

    def _read(self) -> State:
        try:
            opener = build_opener(ProxyHandler({}))
            with opener.open(f"http://{self.shown}/-/state", timeout=ANSWER_S) as answer:
                state: State = json.loads(answer.read(MAX_ANSWER_BYTES))
            running = {pipeline["name"] for pipeline in state["pipelines"]}
        except (OSError, URLError) as error:
            reason = getattr(error, "reason", error)
            why = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
            raise ProcessSilent(f"no process answers at {self.shown}: {str(why).lower()}", _HINT) from None
        except (ValueError, KeyError, TypeError):
            raise ProcessSilent(f"the server at {self.shown} is not a process of `runner up`", _HINT) from None
        if not running & set(self._names):
            text = f"the process at {self.shown} runs other pipelines: {', '.join(sorted(running))}"
            raise ProcessSilent(text, _HINT)
        return state


_HINT = "set its address: --http HOST:PORT, as for `runner up`, or telemetry.http in the file"


def with_process(statuses: Sequence[PipelineStatus], state: State) -> list[PipelineStatus]:
    """Return the statuses, with the values that a process knows of the pipelines that it runs."""
    runner = state["runner"]
    process = RunningProcess(*(str(runner[key]) for key in ("host", "process", "version", "release", "since")))
    running = {pipeline["name"] for pipeline in state["pipelines"]}
    found = []
    for status in statuses:
        if status.name in running:
            rows = [row for row in state["subscribers"] if row["pipeline"] == status.name]
            queues = tuple(_with_subscribers(queue, rows) for queue in status.queues)
            processes = status.processes or (process,)
            pauses = {row["name"]: _pause(row["pause"]) for row in rows if row["pause"]}
            status = replace(status, queues=queues, processes=processes, pauses={**pauses, **(status.pauses or {})})
        found.append(status)
    return found


def statuses_of(names: Sequence[str], state: State) -> list[PipelineStatus]:
    """Return the statuses of pipelines from their process alone, for the in-process broker."""
    known = {queue["queue"]: queue for queue in state["queues"]}
    found = []
    for pipeline in state["pipelines"]:
        if pipeline["name"] in names:
            queues = tuple(_queue(known[name]) for name in pipeline["queues"] if name in known)
            counts = (pipeline["retrying"], pipeline.get("scheduled"))
            found.append(PipelineStatus(pipeline["name"], pipeline["path"], queues, *counts))
    return with_process(found, state)


def _pause(row: State) -> Pause:
    return Pause(datetime.fromisoformat(row["since"]), row["reason"])


def _queue(row: State) -> QueueStatus:
    """Return the queue that `QueueStatus.as_json` has converted."""
    numbers = ("ready", "unacked", "consumers", "publish_rate", "deliver_rate", "dead_letter", "dead", "oldest_s")
    return QueueStatus(name=row["queue"], exists=row["exists"], **{name: row[name] for name in numbers})


def _with_subscribers(queue: QueueStatus, rows: Sequence[State]) -> QueueStatus:
    """Return a queue with the values of its subscribers. Values that the broker knows stay."""
    own = [row for row in rows if row["queue"] == queue.name]
    if not own:
        return queue
    rates = [row["rate"] for row in own if row["rate"] is not None]
    ages = [row["oldest"] for row in own if row["oldest"] is not None]
    return replace(
        queue,
        deliver_rate=sum(rates) if queue.deliver_rate is None and rates else queue.deliver_rate,
        oldest_s=max(ages) if queue.oldest_s is None and ages else queue.oldest_s,
        failed=sum(row["failed"] or 0 for row in own),
        is_paused=any(row["paused"] for row in own),
    )
