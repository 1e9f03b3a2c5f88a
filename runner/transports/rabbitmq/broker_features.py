"""What newer lines of RabbitMQ do for us that older ones do not, and which of it a broker has."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BrokerFeature:
    """Something that the lines of RabbitMQ from `since` on have, and those from `until` on have no more."""

    name: str
    since: tuple[int, int]
    until: tuple[int, int] | None = None

    def is_in(self, line: tuple[int, int]) -> bool:
        """Whether this line of RabbitMQ, as in (4, 3), has it."""
        return line >= self.since and (self.until is None or line < self.until)


CONSUMER_TIMEOUT = BrokerFeature("consumer timeouts", (4, 3))
"""A consumer of a quorum queue may ask for its own `consumer_timeout`."""

_QUORUM_PRIORITIES = {
    2: BrokerFeature("2 quorum priorities", (4, 0), until=(4, 3)),  # of 5 and above two come for one of the others
    32: BrokerFeature("32 quorum priorities", (4, 3)),
}

FEATURES = (
    CONSUMER_TIMEOUT,
    *_QUORUM_PRIORITIES.values(),
    BrokerFeature("uncounted returns", (4, 3)),  # what `nack` gives back does not count towards the delivery limit
)


def features_of(line: tuple[int, int]) -> tuple[str, ...]:
    """Return the names of what this line of RabbitMQ has."""
    return tuple(feature.name for feature in FEATURES if feature.is_in(line))


def quorum_priorities_of(line: tuple[int, int]) -> int:
    """Return how many priorities the quorum queues of this line have."""
    return next((count for count, feature in _QUORUM_PRIORITIES.items() if feature.is_in(line)), 0)


def line_of(text: str) -> tuple[int, int]:
    """Return the line that a version names, as in `RabbitMQ 4.3.6`; (0, 0) where it names none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found is not None else (0, 0)
