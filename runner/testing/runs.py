"""Runs the tests of a file, each with an engine of its own."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from runner.config.document import KeyPath, dotted_path
from runner.config.suite_spec import PublishSpec
from runner.errors import PublishFailed, RunnerError
from runner.message import Publish, PublishOptions
from runner.runtime.resources import ResourceFailed
from runner.schedule import Cron
from runner.testing.engine import CALL_TIMEOUT_S, Engine
from runner.testing.expectations import UNMET, Comparison, Failure
from runner.testing.records import Record
from runner.testing.suites import Suite, replacements

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class CaseResult:
    """How a test ended. `virtual_s` is the virtual time that has passed since `start`."""

    suite: Suite
    name: str
    outcome: Outcome
    seconds: float = 0.0
    start: datetime | None = None
    virtual_s: float = 0.0
    failures: tuple[Failure, ...] = ()
    records: tuple[Record, ...] = field(default=(), repr=False)
    printed: str = ""
    """What handlers have printed and logged, if it was kept."""

    @property
    def reason(self) -> str:
        """Why the test was left out."""
        return self.suite.spec.tests[self.name].skip or ""


def run_case(suite: Suite, name: str) -> CaseResult:
    """Run a test of a file."""
    case = suite.spec.tests[name]
    if case.skip is not None:
        return CaseResult(suite, name, "skipped")
    began = time.perf_counter()
    engine = Engine(
        [suite.path.parent / path for path in suite.spec.pipelines],
        env=suite.spec.env,
        replace=replacements(case),
        now=case.start,
        only=case.only,
        overlays=suite.overlays,
    )
    try:
        run = _Run(suite, name, engine)
        failures = tuple(run.failures())
        outcome: Outcome = "failed" if failures else "passed"
        records = tuple(engine.records)
        return CaseResult(
            suite, name, outcome, time.perf_counter() - began, run.start, run.elapsed_s, failures, records
        )
    finally:
        engine.close()


class _Run:
    """One run of one test."""

    def __init__(self, suite: Suite, name: str, engine: Engine) -> None:
        self._file = suite.file
        self._case = suite.spec.tests[name]
        self._path: KeyPath = ("tests", name)
        self._engine = engine
        self.start = engine.now

    @property
    def elapsed_s(self) -> float:
        """The virtual time that has passed."""
        return (self._engine.now - self.start).total_seconds()

    def failures(self) -> Iterator[Failure]:
        """Start the pipelines, publish the messages, run, and yield what is not as expected."""
        try:
            self._engine.start()
        except ResourceFailed as error:
            yield self._failure(("replace", "resources"), error)
            return
        for index, (seconds, message) in sorted(enumerate(self._timed()), key=lambda item: item[1][0]):
            self._advance_to(seconds)
            try:
                self._engine.wait(self._publishing(message))
            except PublishFailed as error:
                yield self._failure(("publish", index, "to"), error)
        try:
            if self._case.run_for is None:
                self._engine.wait(self._engine.idling())
            else:
                self._advance_to(self._case.run_for)
        except RunnerError as error:
            yield self._failure(() if self._case.run_for is None else ("run_for",), error)
        comparison = Comparison(self._file, self._path, self._engine.records, self.start)
        for failure in comparison.failures(self._case.expect):
            help_ = self._about_schedules(failure)
            yield replace(failure, problem=replace(failure.problem, help=help_)) if help_ else failure

    def _about_schedules(self, failure: Failure) -> str:
        """Return the help for what a schedule does at another time than the test expects, "" if that is not why."""
        producers = [producer for pipeline in self._engine.pipelines for producer in pipeline.producers]
        waiting = [producer.name for producer in producers if producer.schedule]
        by_utc = [item.name for item in producers if isinstance(item.schedule, Cron) and item.schedule.zone is None]
        if waiting and not failure.story and self._case.run_for is None:
            return f'"{waiting[0]}" waits for its time: add `run_for:`, as in `run_for: 24h`'
        if by_utc and failure.problem.path.endswith(".at"):
            return f'"{by_utc[0]}" runs by UTC: add `timezone:` to it, as in `timezone: Europe/Berlin`, for local times'
        return ""

    def _publishing(self, message: PublishSpec) -> Coroutine[Any, Any, object]:
        """Return the publication of a message; an answer is not waited for."""
        made = Publish(message.payload, headers=message.headers, id=message.id)
        made.options = PublishOptions(message.delay, message.expires, message.priority)
        if not message.reply:
            return self._engine.publishing(message.to, made, is_foreign=True)
        timeout_s = CALL_TIMEOUT_S if message.timeout is None else message.timeout
        return self._engine.asking(message.to, made, is_foreign=True, timeout=timeout_s)

    def _timed(self) -> Iterator[tuple[float, PublishSpec]]:
        """Yield each message that the test publishes, after the seconds from the start to its publication."""
        seconds = 0.0
        for message in self._case.publish:
            if message.at is not None:
                seconds = self._case.seconds(message.at)
            yield seconds, message

    def _advance_to(self, seconds: float) -> None:
        if (left := seconds - self.elapsed_s) > 0:
            self._engine.wait(self._engine.advancing(left))

    def _failure(self, path: KeyPath, error: RunnerError) -> Failure:
        problem = self._file.problem(UNMET, (*self._path, *path), str(error), error.hint)
        return Failure(replace(problem, path=dotted_path(path)), story=tuple(self._engine.records))
