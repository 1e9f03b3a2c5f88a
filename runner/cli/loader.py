"""Loads pipelines for every verb but `up`, and keeps what handlers' modules print out of the verb's output."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.output import echo_err

if TYPE_CHECKING:
    from runner.app import System
    from runner.config.overlays import Overlay
    from runner.transports.base import TransportEvent


def load_system(
    paths: Sequence[Path],
    environ: Mapping[str, str],
    broker: str | None = None,
    overlays: Sequence[Overlay] = (),
    *,
    wait_s: float = 0.0,
    is_one_process: bool = True,
) -> System:
    """Return the pipelines at `paths`, with overlays. Connecting is retried for `wait_s`; with 0 it is tried once.

    What modules print while they are imported goes to stderr. Raises PipelineInvalid.
    """
    from runner import app

    with stdout_to_stderr():
        system = app.load(paths, environ, overlays, broker=broker, is_one_process=is_one_process)
    pipelines = (
        replace(pipeline, broker=replace(pipeline.broker, connect_timeout_s=wait_s)) for pipeline in system.pipelines
    )
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
        parts = (f"waiting for the broker {change.fields.get('broker', '')}: {what}", change.fields.get("error", ""))
        echo_err(" · ".join(str(part) for part in parts if part))
