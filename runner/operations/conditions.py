"""Conditions on the state of queues, such as `dead>0`, for `runner status --fail-if`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runner.config import guesses
from runner.config.messages import closest
from runner.operations.status import PipelineStatus, QueueStatus
from runner.units import format_duration, parse_duration

_WRITTEN = re.compile(r"\s*(?:(?P<queue>.*\S)\s*:)?\s*(?P<name>[a-z_]+)\s*(?P<sign>[<>=!]+)\s*(?P<limit>\S+)\s*")
_SEVERAL = re.compile(r"\s+(?:and|or)\s+|\s*(?:&&|\|\||,|;)\s*", re.IGNORECASE)
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_MEANT = {
    **dict.fromkeys(("depth", "messages", "length", "len", "size", "lag", "backlog", "waiting", "count"), "ready"),
    **dict.fromkeys(("unacknowledged", "unack", "inflight", "in_flight"), "unacked"),
    **dict.fromkeys(("oldest", "latency", "delay", "wait"), "age"),
    **dict.fromkeys(("dlq", "dlx", "dead_letters", "deadletters"), "dead"),
    **dict.fromkeys(("workers", "subscribers", "processes"), "consumers"),
    **dict.fromkeys(("errors", "failures"), "failed"),
}
"""Words of other programs for the values."""

_EXAMPLES = "as in 'dead>0', 'age>5m' or 'orders: consumers<1'"

AGE = "age"
_VALUES: Mapping[str, Callable[[QueueStatus], float | None]] = {
    "ready": lambda queue: queue.ready,
    "unacked": lambda queue: queue.unacked,
    "consumers": lambda queue: queue.consumers,
    "in": lambda queue: queue.publish_rate,
    "out": lambda queue: queue.deliver_rate,
    AGE: lambda queue: queue.oldest_s,
    "failed": lambda queue: queue.failed,
    "paused": lambda queue: queue.is_paused,
    "dead": lambda queue: queue.dead,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. It applies to all queues if `queue` is empty. `limit` is in seconds for `age`."""

    text: str
    queue: str
    name: str
    sign: str
    limit: float

    def judge(self, queue: QueueStatus) -> bool | None:
        """Return whether the condition holds for a queue; None if the value is not known."""
        if queue.exists is False:
            value: float | None = 0.0
        elif self.name == "dead" and queue.dead_letter is None:
            return False
        else:
            value = _VALUES[self.name](queue)
        return None if value is None else _SIGNS[self.sign](value, self.limit)


def parse_condition(text: str) -> Condition:
    """Parse a condition. Raises ValueError with a text that says what to write."""
    found = _WRITTEN.fullmatch(text)
    if len(parts := _SEVERAL.split(text)) > 1:
        each = " ".join(f"--fail-if '{part.strip()}'" for part in parts)
        is_and = re.search(r"\band\b|&", text, re.IGNORECASE) is not None
        why = 'there is no "and": each one alone lets it fail' if is_and else "each has its own option"
        raise ValueError(f'"{text}" is {len(parts)} conditions, and {why}: write {each}')
    if text.rpartition(":")[2].strip() in _VALUES:
        why = "without quotes, the shell takes what follows a > as the name of a file"
        raise ValueError(f"\"{text}\" has no comparison, as in '{text}>0': {why}")
    if found is None:
        raise ValueError(f'"{text}" is not a condition: write a name, a comparison and a limit, {_EXAMPLES}')
    name, sign = found["name"], found["sign"]
    if name not in _VALUES:
        meant = _MEANT.get(name) or closest(name, _VALUES)
        hint = f'did you mean "{meant}"?' if meant else f"use one of {', '.join(_VALUES)}"
        raise ValueError(f'"{name}" in "{text}" is not a value of a queue: {hint}')
    if sign not in _SIGNS:
        meant = {"=": "==", "=>": ">=", "=<": "<=", "<>": "!="}.get(sign, "")
        hint = f'did you mean "{meant}"?' if meant else f"use one of {' '.join(_SIGNS)}"
        raise ValueError(f'"{sign}" in "{text}" is not a comparison: {hint}')
    return Condition(text.strip(), found["queue"] or "", name, sign, _limit(text, name, found["limit"]))


def _limit(text: str, name: str, limit: str) -> float:
    try:
        number = parse_duration(limit) if name == AGE else float(limit)
        if not math.isfinite(number):
            raise ValueError(limit)
        return number
    except ValueError:
        meant = f"{limit}s, {limit}m or {limit}h" if limit.isdecimal() else guesses.duration(limit) or "30s or 5m"
        kind = f"a duration: write {meant}" if name == AGE else "a number"
        raise ValueError(f'"{limit}" in "{text}" is not {kind}') from None


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that holds for a queue, or that may hold because the value is not known."""

    condition: Condition
    queue: QueueStatus
    is_known: bool

    def __str__(self) -> str:
        if not self.is_known:
            return f"{self.queue.name}: {self.condition.name} is not known, so {self.condition.text} may hold"
        value = _VALUES[self.condition.name](self.queue) or 0.0
        shown = format_duration(round(value)) if self.condition.name == AGE else f"{value:g}"
        return f"{self.queue.name}: {self.condition.name} is {shown} ({self.condition.text})"


def judge(conditions: Sequence[Condition], pipelines: Sequence[PipelineStatus]) -> Iterator[Finding]:
    """Yield a finding for each condition that holds or may hold. Raises ValueError for an unknown queue."""
    queues = {queue.name: queue for pipeline in pipelines for queue in pipeline.queues}
    for condition in conditions:
        if condition.queue and condition.queue not in queues:
            meant = closest(condition.queue, queues)
            hint = f'did you mean "{meant}"?' if meant else f"the queues are {', '.join(queues)}"
            raise ValueError(f'"{condition.text}" names no queue of the pipelines: {hint}')
        for queue in [queues[condition.queue]] if condition.queue else queues.values():
            verdict = condition.judge(queue)
            if verdict is not False:
                yield Finding(condition, queue, is_known=verdict is not None)
