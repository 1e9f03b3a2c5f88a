"""Declarative pipelines for asynchronous messaging. What authors of handlers and of publishers need, nothing else."""

from typing import TYPE_CHECKING, Any

from runner.errors import (
    BatchFailed,
    BrokerUnavailable,
    CallFailed,
    NoAnswer,
    OutboxUnavailable,
    PipelineInvalid,
    PublisherClosed,
    PublishFailed,
    PublishTimeout,
    Reject,
    RetryLater,
    RunnerError,
    TopologyMismatch,
)
from runner.message import Message, Publish

if TYPE_CHECKING:
    from runner.publisher import AsyncPublisher, Publisher

__all__ = [
    "AsyncPublisher",
    "BatchFailed",
    "BrokerUnavailable",
    "CallFailed",
    "Message",
    "NoAnswer",
    "OutboxUnavailable",
    "PipelineInvalid",
    "Publish",
    "PublishFailed",
    "PublishTimeout",
    "Publisher",
    "PublisherClosed",
    "Reject",
    "RetryLater",
    "RunnerError",
    "TopologyMismatch",
]


def __getattr__(name: str) -> Any:
    """Import the publishers when they are first used: handlers do not need them, and they need the broker's client."""
    if name in ("AsyncPublisher", "Publisher"):
        from runner import publisher

        return getattr(publisher, name)
    raise AttributeError(f"module 'runner' has no attribute '{name}'")
