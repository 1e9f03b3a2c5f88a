"""Addresses of direct replies: those that RabbitMQ makes, and forged ones that would end a connection."""

from __future__ import annotations

import pytest

from runner.transports.direct_reply import is_answerable

REAL = "amq.rabbitmq.reply-to.g1h2AA9yZXBseUAxMTcwODk3ODAAAAK0AAAAAGsNFYM=.W83xCrIV5MKD4QkEnlqjMQ=="


@pytest.mark.parametrize("address", [REAL, "amq.gen-JzTY20BRgKO-HjmUJj0wLg", "answers", "amq.rabbitmq.reply-to"])
def test_what_the_broker_makes_can_be_answered(address: str) -> None:
    """And every name of a queue."""
    assert is_answerable(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "answers-\udce9",
        "amq.rabbitmq.reply-to.",
        "amq.rabbitmq.reply-to.x",
        "amq.rabbitmq.reply-to.x.y",
        "amq.rabbitmq.reply-to.ü.y",
        "amq.rabbitmq.reply-to.gw==.y",
        "amq.rabbitmq.reply-to.g2EB.y",
        "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA=.y",
        REAL.replace("g1h2", "g1l2"),
        REAL.replace("AA9y", "AAhy"),
        REAL.rpartition(".")[0],
        REAL.rpartition(".")[0] + ".",
        REAL + ".more",
    ],
)
def test_a_forged_address_is_known(address: str) -> None:
    """Broken, cut off, or something else than a process."""
    assert not is_answerable(address)


def test_no_cut_off_address_passes() -> None:
    """Whatever is missing of the process."""
    head, _, key = REAL.rpartition(".")
    for length in range(len("amq.rabbitmq.reply-to."), len(head)):
        assert not is_answerable(f"{head[:length]}.{key}")
