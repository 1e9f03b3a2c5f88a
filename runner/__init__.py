"""Declarative pipelines for asynchronous messaging. What authors of handlers need, and nothing else."""

from runner.errors import Reject, RetryLater
from runner.message import Message, Publish

__all__ = ["Message", "Publish", "Reject", "RetryLater"]
