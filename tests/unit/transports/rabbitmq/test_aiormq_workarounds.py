"""Why a connection was lost, in words for an operator."""

from __future__ import annotations

import aiormq.exceptions
import pytest

from runner.transports.rabbitmq.aiormq_workarounds import describe_error

RESET = "Server communication error: ConnectionResetError(104, 'Connection reset by peer')"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 5672)"), "connection refused"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] …"), "connection refused"),
        (aiormq.exceptions.AMQPConnectionError(RESET), "connection reset by peer"),
        (
            aiormq.exceptions.AMQPConnectionError(
                f"Server connection error: {aiormq.exceptions.AMQPConnectionError(RESET)!r}"
            ),
            "connection reset by peer",
        ),
        (aiormq.exceptions.ConnectionClosed(320, "CONNECTION_FORCED - x"), "CONNECTION_FORCED - x"),
        (TimeoutError(), "no answer in time"),
        (None, "connection closed"),
    ],
)
def test_a_reason_is_one_plain_phrase(error: BaseException | None, text: str) -> None:
    """Whatever asyncio and aiormq wrap around it."""
    assert describe_error(error) == text
