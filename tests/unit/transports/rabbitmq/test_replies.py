"""What a reply text says about a missing right, and what to do: the texts of RabbitMQ 3.10 and 4.3."""

from __future__ import annotations

import pytest

from runner.transports.rabbitmq.channels import access_refused, help_for_reply

OLD = "ACCESS_REFUSED - access to queue 'orders' in vhost '/' refused for user 'ann'"
NEW = "ACCESS_REFUSED - read access to queue 'orders' in vhost '/' refused for user 'ann'"
EXPORT = "`runner export permissions PATH --user ann` prints the command that gives the rights"


@pytest.mark.parametrize(
    ("reply", "sentence", "hint"),
    [
        (OLD, 'the user "ann" has no right to queue "orders"', EXPORT),
        (NEW, 'the user "ann" has no right to read queue "orders"', EXPORT),
        (
            "NOT_FOUND - no queue 'orders' in vhost '/'",
            "",
            "declare it with `runner apply PATH`, or set broker.topology to manage",
        ),
        ("RESOURCE_LOCKED - cannot obtain exclusive access", "", "stop the connection that holds it"),
        ("INTERNAL_ERROR", "", ""),
    ],
)
def test_a_reply_and_its_help(reply: str, sentence: str, hint: str) -> None:
    assert (access_refused(reply), help_for_reply(reply)) == (sentence, hint)
