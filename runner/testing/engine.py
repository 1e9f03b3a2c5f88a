"""Runs pipelines on the in-process broker with virtual time, driven from any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from runner.pipeline.model import Pipeline
from runner.testing.records import Record
from runner.testing.replacement import Replacement


class Engine:
    """Pipelines under test. `replace` has a stand-in for each name of a subscriber or producer, and `resources`."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        replace: Mapping[str, Replacement | Callable[..., Any] | Mapping[str, Any]] | None = None,
        now: datetime | None = None,
        only: Sequence[str] = (),
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Load the pipelines and start them. Raises PipelineInvalid with every problem, as `validate` reports it."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop the pipelines. Handlers that are still running are cancelled. Idempotent."""
        raise NotImplementedError

    def publish(self, to: str, payload: Any, *, id: str | None = None, headers: Mapping[str, Any] | None = None) -> str:
        """Publish a message to a queue or an event, and return its id. Raises PublishFailed."""
        raise NotImplementedError

    def until_idle(self) -> None:
        """Run until nothing is left to do but to wait for schedules. Raises NeverIdle."""
        raise NotImplementedError

    def advance(self, duration: str | float) -> None:
        """Let this much virtual time pass."""
        raise NotImplementedError

    def run_for(self, duration: str | float) -> None:
        """Do the same as `advance`."""
        raise NotImplementedError

    @property
    def now(self) -> datetime:
        """The virtual time, UTC."""
        raise NotImplementedError

    @property
    def records(self) -> Sequence[Record]:
        """Everything that has happened so far, in order."""
        raise NotImplementedError

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """The pipelines, with the replaced handlers."""
        raise NotImplementedError
