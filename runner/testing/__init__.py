"""Tests of pipelines: the real pipeline on the in-process broker, with virtual time."""

from runner.errors import PipelineInvalid
from runner.message import Message
from runner.testing.recorder import NeverIdle
from runner.testing.records import Record
from runner.testing.replacement import Replacement
from runner.testing.running import Running, RunningSync, running, running_sync

__all__ = [
    "Message",
    "NeverIdle",
    "PipelineInvalid",
    "Record",
    "Replacement",
    "Running",
    "RunningSync",
    "running",
    "running_sync",
]
