"""Loads pipelines for every verb but `up`, and keeps what handlers' modules print out of the verb's output."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.output import echo_err

if TYPE_CHECKING:
    from runner.config.overlays import Overlay
    from runner.operations.pipeline_files import CheckedSpec
    from runner.system import System
    from runner.transports.base import TransportEvent


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """What a command line says of the pipelines and their broker. Connecting is retried for `wait_s`; with 0, not."""

    paths: tuple[Path, ...]
    overlays: tuple[Overlay, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    broker: str | None = None
    management: str | None = None
    wait_s: float = 0.0

    def load(self, *, is_one_process: bool = True, is_quiet: bool = True) -> System:
        """Return the pipelines, with overlays. What modules print while they are imported goes to stderr.

        With `is_quiet` nothing is logged from then on: errors are reported, and the log lines of the AMQP client add
        nothing. Raises PipelineInvalid.
        """
        from runner.system import load

        if is_quiet:
            logging.disable()
        with stdout_to_stderr():
            system = load(self.paths, self.environ, self.overlays, broker=self.broker, is_one_process=is_one_process)
        return with_broker(system, connect_timeout_s=self.wait_s, management_url=self.management)

    def specs(self) -> list[CheckedSpec]:
        """Return the files of the pipelines with what is written in them. Raises PipelineInvalid."""
        from runner.operations.pipeline_files import read_specs

        return read_specs(self.paths, self.environ, self.overlays)


def with_broker(system: System, **settings: Any) -> System:
    """Return the system with other broker settings in each pipeline."""
    pipelines = (replace(each, broker=replace(each.broker, **settings)) for each in system.pipelines)
    return replace(system, pipelines=tuple(pipelines))


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Let everything that is written to stdout go to stderr, also by programs that a module starts."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        saved = -1
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        if saved >= 0:
            os.dup2(saved, 1)
            os.close(saved)


def echo_broker_state(change: TransportEvent) -> None:
    """Say what the verb is waiting for, and that spans are lost."""
    if change.event == "traces.lost":
        echo_err(f"traces: {change.fields['error']}")
    if change.event in ("broker.connecting", "broker.unreachable", "broker.blocked", "broker.stalled"):
        what = change.event.partition(".")[2]
        parts = (
            f"waiting for the broker {change.fields.get('broker', '')}: {what}",
            change.fields.get("error", ""),
            change.fields.get("help", ""),
        )
        echo_err(" · ".join(str(part) for part in parts if part))
