"""The same projects as in tests/e2e; see there."""

from tests.e2e.conftest import (
    broker,
    foreign,
    memory_project,
    on_rabbitmq,
    project,
    rabbit_project,
    sweeper,
    vhost,
)

__all__ = [
    "broker",
    "foreign",
    "memory_project",
    "on_rabbitmq",
    "project",
    "rabbit_project",
    "sweeper",
    "vhost",
]
