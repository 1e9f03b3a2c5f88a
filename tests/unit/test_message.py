"""What a test of a handler makes by itself."""

from __future__ import annotations

import pickle

import pytest

from runner import Message


def test_a_message_can_be_made_of_a_payload_alone() -> None:
    """Everything else is as in a message that has nothing but a body, on its first attempt."""
    message = Message({"order": 1})
    assert message == Message(payload={"order": 1}, id=None, headers={}, attempt=1, queue="", is_redelivered=False)
    assert (message.correlation_id, message.event, message.timestamp, message.priority) == (None, None, None, None)
    assert (message.exchange, message.routing_key) == ("", "")
    assert pickle.loads(pickle.dumps(message)) == message


def test_only_the_payload_is_given_by_position() -> None:
    """The order of the other fields means nothing."""
    with pytest.raises(TypeError):
        Message({"order": 1}, "id")
