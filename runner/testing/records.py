"""What happened during a test, as records in the order in which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

RecordKind = Literal["published", "unheard", "handled", "retried", "dead", "released", "duplicate", "answered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that happened to one message.

    - `published`: a message was published and confirmed. `unheard` follows when no queue takes an event that may go
      unheard.
    - `handled`, `retried`, `dead`, `released`, `duplicate`: how an attempt has ended. `dead` also stands for a message
      that the broker gives up, for example because it has expired; it then has no subscriber.
    - `answered`: a question of the test has its answer, or, with a `reason`, none. The id is that of the question.
    """

    kind: RecordKind
    at: datetime
    """Virtual time, UTC."""
    message_id: str
    payload: Any
    """Decoded as for a handler without an annotation: JSON, else text, else bytes."""
    headers: Mapping[str, Any]
    """The headers that neither the runner nor the broker has set."""
    pipeline: str | None = None
    subscriber: str | None = None
    producer: str | None = None
    """Whose result a published message is. The test itself published what has neither a subscriber nor a producer."""
    queue: str | None = None
    """Where the message was handled, retried or given up."""
    to: str | None = None
    """The name in the YAML that a message was published to; for `dead`, the dead-letter queue, None if dropped."""
    attempt: int | None = None
    after: float | None = None
    """The delay of a retry, in seconds."""
    reason: str | None = None
    """Why a message is dead: `exhausted`, `rejected`, `invalid`, …, or the broker's reason, such as `expired`."""
    error_type: str | None = None
    error: str | None = None
    """The text of the error that a retry or a dead letter comes from."""
    arrives: datetime | None = None
    """When a published message with a delay arrives."""
    delay: float | None = None
    expires: float | None = None
    priority: int | None = None
    """The options of a published message, in seconds."""
    cause: str | None = None
    """The id of the message whose handler published this one; of a batch, the first of them."""
