"""Compares what is expected of a test with the records of what happened."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from runner.config.document import KeyPath, dotted_path
from runner.config.loader import PipelineFile
from runner.config.suite_spec import AnswerSpec, ExpectedMessage, ExpectSpec, PublishedSpec, RetriedSpec
from runner.errors import Problem
from runner.testing.records import Record
from runner.units import format_duration

UNMET = "unmet-expectation"

_COUNTS: Mapping[str, tuple[str, Literal["subscriber", "to"]]] = {
    "handled": ("handled", "subscriber"),
    "duplicates": ("duplicate", "subscriber"),
    "unheard": ("unheard", "to"),
}
"""Keys with numbers: the kind of the records that are counted, and their field that has the name."""

_FIELDS = {
    "to": "to",
    "id": "message_id",
    "queue": "queue",
    "subscriber": "subscriber",
    "reason": "reason",
    "error_type": "error_type",
}
"""Keys of an expected message that are compared as they are, and the field of the record."""

_OPTIONS: Mapping[str, Callable[[Any], str]] = {"delay": format_duration, "expires": format_duration, "priority": str}
"""Keys of how a message is delivered, and how their values are shown."""

MAX_SHOWN = 20
"""How many messages are compared and shown where others were expected."""

_MAX_VALUE = 80
_SAME_TIME_S = 0.001


@dataclass(frozen=True)
class Failure:
    """An expectation that is not met: where it is written, the differences of a message, and the story.

    The story has the records of the messages concerned.
    """

    problem: Problem
    differences: tuple[str, ...] = ()
    story: tuple[Record, ...] = ()


@dataclass(frozen=True)
class _Difference:
    """A difference between an expected message and a real one, and the path of the key in the expectation."""

    path: KeyPath
    text: str


@dataclass(frozen=True)
class Comparison:
    """Compares the expectations of a test with records.

    `path` is that of the test in its file, `start` the virtual time at which it started.
    """

    file: PipelineFile
    path: KeyPath
    records: Sequence[Record]
    start: datetime

    def failures(self, expect: ExpectSpec) -> Iterator[Failure]:
        """Yield a failure for each expectation that is not met, in the order of the records' kinds."""
        for key, (kind, field) in _COUNTS.items():
            for name, count in getattr(expect, key).items():
                found = [each for each in self._of_kind(kind) if _has(each, field, name)]
                if len(found) != count:
                    yield self._failure((key, name), f"expected {count}, got {len(found)}", about=_names(name))
        for name, retried in expect.retried.items():
            yield from self._retried(name, retried)
        if "published" in expect.model_fields_set:
            made = [each for each in self._of_kind("published") if each.subscriber or each.producer]
            names = {item.to for item in expect.published if item.times}
            found = [each for each in made if each.to in names or not expect.published]
            yield from self._messages("published", expect.published, found, made)
        if "dead" in expect.model_fields_set:
            dead = self._of_kind("dead")
            yield from self._messages("dead", expect.dead, dead, dead)
        if "answers" in expect.model_fields_set:
            answers = self._of_kind("answered")
            yield from self._messages("answers", expect.answers, answers, answers)

    def _of_kind(self, kind: str) -> list[Record]:
        return [each for each in self.records if each.kind == kind]

    def _retried(self, name: str, expected: RetriedSpec) -> Iterator[Failure]:
        delays = [each.after or 0.0 for each in self._of_kind("retried") if _has(each, "subscriber", name)]
        if expected.after is not None:
            is_same = len(delays) == len(expected.after) and all(
                abs(delay - wanted) < _SAME_TIME_S for delay, wanted in zip(delays, expected.after, strict=True)
            )
            if not is_same:
                message = f"expected {_delays(expected.after)}, got {_delays(delays)}"
                yield self._failure(("retried", name, "after"), message, about=_names(name))
        elif expected.count != len(delays):
            path = ("retried", name, "count")
            yield self._failure(path, f"expected {expected.count}, got {len(delays)}", about=_names(name))

    # Messages

    def _messages(
        self,
        key: str,
        expected: Sequence[ExpectedMessage],
        found: Sequence[Record],
        all_found: Sequence[Record],
    ) -> Iterator[Failure]:
        """Compare a list of expected messages with the messages that it must name, one to one.

        An item with `times: 0` is compared with all messages of its kind.
        """
        for index, item in enumerate(expected):
            none = [each for each in all_found if not any(self._differences(item, each))] if not item.times else []
            if none:
                yield self._failure((key, index), f"expected none, got {len(none)}", about=_records(none))
        missing, extra = self._unpaired(expected, found)
        for index, count in missing.items():
            item = expected[index]
            others = [each for each in extra if not isinstance(item, PublishedSpec) or item.to == each.to]
            if others:
                closest = min(others[:MAX_SHOWN], key=partial(self._distance, item))
                yield self._other(key, index, item, closest)
                gone = {id(closest), *[id(each) for each in others if each is not closest][: count - 1]}
                extra = [each for each in extra if id(each) not in gone]
            else:
                named = {key: name for key in ("to", "queue", "subscriber") if (name := getattr(item, key, None))}
                at, about = ("to",) if "to" in named else (), _names(next(iter(named.values()), None))
                message = "expected this message, got none" if count == item.times else f"{count} of them are missing"
                yield self._failure((key, index, *at), message, about=about)
        if extra:
            same = [
                at for at, item in enumerate(expected) if isinstance(item, PublishedSpec) and item.to == extra[0].to
            ]
            message = f"expected {'no more' if expected else 'none'}, got {len(extra)}"
            shown = [describe(each) for each in extra[:MAX_SHOWN]]
            yield self._failure((key, *same[-1:]), message, shown, about=_records(extra[:MAX_SHOWN]))

    def _other(self, key: str, index: int, item: ExpectedMessage, found: Record) -> Failure:
        """Return the failure of an expected message where another one was found."""
        differences = list(self._differences(item, found))
        first = differences[0]
        texts = [f"{dotted_path(each.path)}: {each.text}" for each in differences] if len(differences) > 1 else []
        return self._failure((key, index, *first.path), first.text, texts, about=_records([found]))

    def _unpaired(
        self, expected: Sequence[ExpectedMessage], found: Sequence[Record]
    ) -> tuple[Counter[int], list[Record]]:
        """Pair as many expected messages as possible with equal ones.

        Return how many of each expected one are left, by its index, and the messages that are left.
        """
        fitting = [[at for at, each in enumerate(found) if not any(self._differences(item, each))] for item in expected]
        taken: dict[int, int] = {}

        def place(index: int, seen: set[int]) -> bool:
            """Give an item a message of its own; another item may have to take another message for that."""
            seen.add(index)
            for at in fitting[index]:
                if at not in taken:
                    taken[at] = index
                    return True
            for at in fitting[index]:
                if taken[at] not in seen and place(taken[at], seen):
                    taken[at] = index
                    return True
            return False

        missing = Counter(
            index for index, item in enumerate(expected) for _ in range(item.times) if not place(index, set())
        )
        return missing, [each for at, each in enumerate(found) if at not in taken]

    def _distance(self, item: ExpectedMessage, found: Record) -> int:
        return len(list(self._differences(item, found)))

    def _differences(self, item: ExpectedMessage, found: Record) -> Iterator[_Difference]:
        """Yield the differences between an expected message and a real one."""
        if isinstance(item, AnswerSpec) and item.reason is None and found.reason is not None:
            yield _Difference((), f"expected an answer, got none: {found.reason}")
        for key, field in _FIELDS.items():
            expected = getattr(item, key, None)
            if expected is not None and not _has(found, field, expected):
                yield _Difference((key,), _said(expected, getattr(found, field)))
        error = getattr(item, "error", None)
        if error is not None and error not in (found.error or ""):
            yield _Difference(("error",), _said(error, found.error))
        for key, shown in _OPTIONS.items():
            expected, actual = getattr(item, key, None), getattr(found, key)
            if expected is not None and expected != actual:
                got = "none" if actual is None else shown(actual)
                yield _Difference((key,), f"expected {shown(expected)}, got {got}")
        yield from self._time_difference("at", item.at, found.at)
        if isinstance(item, PublishedSpec):
            yield from self._time_difference("arrives", item.arrives, found.arrives or found.at)
        for key, actual in (("payload", found.payload), ("exactly", found.payload), ("headers", found.headers)):
            if key in item.model_fields_set:
                yield from _compare((key,), getattr(item, key), actual, is_exact=key == "exactly")

    def _time_difference(self, key: str, expected: datetime | float | None, actual: datetime) -> Iterator[_Difference]:
        if expected is not None:
            wanted = expected if isinstance(expected, datetime) else self.start + timedelta(seconds=expected)
            if abs((wanted - actual).total_seconds()) >= _SAME_TIME_S:
                shown = self._shown(wanted, expected), self._shown(actual, expected)
                yield _Difference((key,), f"expected {shown[0]}, got {shown[1]}")

    def _shown(self, moment: datetime, like: datetime | float) -> str:
        """Return a time as it is written in the file: as a time, or as a duration after the start."""
        if isinstance(like, datetime):
            return moment.isoformat().replace("+00:00", "Z")
        return format_duration((moment - self.start).total_seconds())

    def _failure(
        self, path: KeyPath, message: str, differences: Sequence[str] = (), *, about: Callable[[Record], bool]
    ) -> Failure:
        path = (*self.path, "expect", *path)
        problem = self.file.problem(UNMET, path, message)
        problem = replace(problem, path=dotted_path(path[len(self.path) :]))
        return Failure(problem, tuple(differences), tuple(self._story(about)))

    def _story(self, about: Callable[[Record], bool]) -> Iterator[Record]:
        """Yield the records of the messages concerned, of what caused them and what they caused; else all records."""
        parents: dict[str, str] = {each.message_id: each.cause for each in self.records if each.cause}

        def root(message_id: str) -> str:
            seen = {message_id}
            while (parent := parents.get(message_id)) is not None and parent not in seen:
                seen.add(message_id := parent)
            return message_id

        roots = {root(each.message_id) for each in self.records if about(each)}
        return (each for each in self.records if not roots or root(each.message_id) in roots)


def _has(record: Record, field: str, value: str) -> bool:
    """Whether a field of a record has a value. Subscribers may be named with their pipeline."""
    actual = getattr(record, field)
    return value == actual or (field == "subscriber" and value == f"{record.pipeline}.{actual}")


def _names(name: str | None) -> Callable[[Record], bool]:
    return lambda each: (
        name is not None and any(_has(each, field, name) for field in ("subscriber", "producer", "queue", "to"))
    )


def _records(records: Sequence[Record]) -> Callable[[Record], bool]:
    return lambda each: any(each is one for one in records)


def _delays(delays: Sequence[float]) -> str:
    return "none" if not delays else f"[{', '.join(map(format_duration, delays))}]"


# Payloads


def _compare(path: KeyPath, expected: Any, actual: Any, *, is_exact: bool) -> Iterator[_Difference]:
    """Yield the differences of two values, key by key. Without `is_exact`, maps may have more keys than expected."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key, value in expected.items():
            if key not in actual:
                yield _Difference((*path, key), f"expected {show(value)}, got no such key")
            else:
                yield from _compare((*path, key), value, actual[key], is_exact=is_exact)
        for key in actual if is_exact else ():
            if key not in expected:
                yield _Difference((*path, str(key)), f"expected no such key, got {show(actual[key])}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, pair in enumerate(zip(expected, actual, strict=True)):
            yield from _compare((*path, index), *pair, is_exact=is_exact)
    elif isinstance(expected, bool) != isinstance(actual, bool) or expected != actual:
        yield _Difference(path, _said(expected, actual))


def _said(expected: Any, actual: Any) -> str:
    return f"expected {show(expected)}, got {show(actual)}"


def show(value: Any) -> str:
    """Return a value as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


# The story of messages


def story_lines(records: Sequence[Record], start: datetime) -> list[str]:
    """Return a line for each record, with its virtual time since the start."""
    rows = [
        (_elapsed((each.at - start).total_seconds()), each.kind, describe(each), each.message_id[:12])
        for each in records
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return [f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}" for row in rows]


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if hours or minutes else ""]
    return "+" + "".join(parts) + (f"{rest:g}s" if rest or not any(parts) else "")


def describe(record: Record) -> str:
    """Return what a record says, without its time, its kind and the message's id."""
    is_publication = record.kind in ("published", "unheard")
    by, to = record.subscriber or record.producer or "the test", record.to
    if is_answer := record.kind == "answered":
        by, to = str(to), by
    is_shown = is_publication or (is_answer and record.reason is None)
    parts = [f"{by} → {to}"] if is_publication or is_answer else [record.subscriber or record.queue or ""]
    parts += [show(record.payload)] if is_shown else []
    parts += [f"attempt {record.attempt}"] if record.attempt and not is_publication else []
    parts += [f"again after {format_duration(record.after)}"] if record.after is not None else []
    parts += [record.reason] if record.reason and (is_answer or record.kind == "dead") else []
    error = ": ".join(part for part in (record.error_type, record.error) if part)
    return " · ".join([*parts, *([error] if error else [])])
