"""Which parts of the pipelines under test no test has reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from runner.pipeline.model import Pipeline
from runner.testing.records import Record
from runner.testing.runs import CaseResult

Part = tuple[str, str]
"""What a part is, and its name."""


def parts(pipeline: Pipeline) -> Iterator[Part]:
    """Yield what tests can reach: subscribers, their retries and dead letters, queues, events and producers."""
    for each in pipeline.subscribers:
        yield "subscriber", each.name
        if each.retry.attempts > 1:
            yield "retry", each.name
        if each.dead_letter is not None:
            yield "dead letter", each.name
    for name, destination in pipeline.destinations.items():
        yield "event" if destination.is_event else "queue", name
    for producer in pipeline.producers:
        if producer.handler is not None:
            yield "schedule" if producer.schedule is not None else "producer", producer.name


_REACHED: Mapping[str, Callable[[Record], Iterable[Part]]] = {
    "handled": lambda record: [("subscriber", record.subscriber or ""), ("queue", record.queue or "")],
    "retried": lambda record: [("retry", record.subscriber or "")],
    "dead": lambda record: [("dead letter", record.subscriber or "")],
    "published": lambda record: [
        ("queue", record.to or ""),
        ("event", record.to or ""),
        ("schedule", record.producer or ""),
        ("producer", record.producer or ""),
    ],
    "unheard": lambda record: [("event", record.to or "")],
}
"""What a record of a kind shows to be reached."""


class Coverage:
    """What the tests of several files have reached, by the file of the pipeline."""

    def __init__(self, results: Iterable[CaseResult]) -> None:
        self._known: dict[Path, dict[Part, bool]] = {}
        for result in results:
            found = [record for record in result.records if record.kind in _REACHED]
            reached = {part for record in found for part in _REACHED[record.kind](record)}
            for pipeline in result.suite.system.pipelines:
                known = self._known.setdefault(Path(pipeline.path).resolve(), {})
                for part in parts(pipeline):
                    known[part] = known.get(part, False) or part in reached

    @property
    def percent(self) -> float:
        """How much of all parts is reached."""
        all_parts = [is_reached for known in self._known.values() for is_reached in known.values()]
        return 100.0 * sum(all_parts) / len(all_parts) if all_parts else 100.0

    def unreached(self) -> dict[Path, list[Part]]:
        """Return the parts that no test reaches, by the file of their pipeline."""
        return {
            path: [part for part, is_reached in known.items() if not is_reached] for path, known in self._known.items()
        }
