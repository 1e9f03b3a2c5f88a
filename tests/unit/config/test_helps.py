"""Helps that are obeyed to the letter: nothing that was written is lost, and no second error follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config.loader import load_text
from runner.errors import Problem

QUEUES = "version: 1\nqueues:\n  orders: {type: classic, max_priority: 9}\n  done: {unread: ignore}\n"
SHIP = "subscribers:\n  ship:\n    from: orders\n    handler: shop:ship\n"
REPORT = "producers:\n  report:\n    handler: shop:report\n    to: orders\n"


def problems(text: str) -> list[Problem]:
    return load_text(text, Path("shop.yaml"), {"EMPTY": ""}).problems


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        # a key that belongs in the map beside it
        (f"{SHIP}    to: done\n    delay: 2h\n", 'write "to: {name: done, delay: 2h}" (in place of "to")'),
        (f"{SHIP}    to: [done]\n    delay: 2h\n", "write `to: [{name: done, delay: 2h}]` in place of it and `to`"),
        (f"{SHIP}    retry: 3\n    backoff: linear\n", 'write "retry: {attempts: 3, backoff: linear}"'),
        # names as keys
        (f"{SHIP}    to: {{done: {{delay: 2h}}}}\n", "write `to: {name: done, delay: 2h}`"),
        (f"{SHIP}    to:\n      done:\n      delay: 2h\n", "write `to: {name: done, delay: 2h}`"),
        (f"{SHIP}    to:\n      - done: {{delay: 2h}}\n      - orders\n", "write `- {name: done, delay: 2h}`"),
        (SHIP.replace("from: orders", "from: {queue: orders}"), "write `from: orders`"),
        # what excludes a key beside it
        (f'{REPORT}    every: 1d\n    at: "06:30"\n', 'write `cron: "30 6 * * *"`, in place of "every: 1d", too'),
        (f"{REPORT}    every: 1d\n    timezone: UTC\n", 'write `cron: "0 0 * * *"` in place of "every", or remove'),
        # limits
        (f"{SHIP}    to: {{name: orders, priority: high}}\n", "write a number from 0 to 9"),
        (
            f"{SHIP}    to: {{name: done, delay: 2y}}\n",
            "a year or a month is no unit: write days, as in 30d, at most 365d",
        ),
        (f"{SHIP}    retry: {{attempts: 3, delay: 100 weeks}}\n", "write a duration between 0ms and 7d"),
        (
            f"{SHIP}    retry: {{attempts: 3, delay: [1s, 5s]}}\n",
            "there is no list of delays: write `attempts: 3`, `delay: 1s`",
        ),
        (
            f"{SHIP}    retry: {{attempts: 3, backoff: 3}}\n",
            "exponential doubles the delay; there are no other factors",
        ),
        (f"{SHIP}    dedupe: order.id\n", "write {window: 1h, key: order.id}"),
        (f"{SHIP}    trip: {{failures: 5}}\n", "for a share, `failures: 100%` and `least: 5` for a number of failures"),
        ("producers: {make: {handler: 'shop:make', to: orders, once: no}}\n" + SHIP, "write false"),
        (f"{SHIP}    concurrency: ${{EMPTY}}\n", "set it, or write a default, as in ${EMPTY:-1}"),
        (f"{SHIP}    timeout: ${{EMPTY}}\n", "set it, or write a default, as in ${EMPTY:-1s}"),
        # several documents, and the end of one
        (f"{SHIP}---\nversion: 1\nname: two\n", "move what follows into a file of its own"),
        (f"---\n{SHIP}", 'remove this "---": what follows belongs to the same pipeline'),
        (f"{SHIP}---\n", 'remove this "---": nothing follows'),
        (f'{SHIP}    with: {{test: true, sender: "shop@exa', 'write what is missing, and end it with "}'),
        # tags
        (
            "broker: {host: h, password: !secret mq_password}\n" + SHIP,
            "write ${MQ_PASSWORD} for a variable, or ${file:",
        ),
        (f"{SHIP}    timeout: !env LIMIT\n", "write ${LIMIT}, or with a default ${LIMIT:-default}"),
        (f"{SHIP}    retry: !include retry.yaml\n", "write `include: [FILE]` at the top of the pipeline"),
        (
            f"{SHIP}    retry: !Policy {{attempts: 3}}\n",
            "write the value itself, ${NAME} for a variable, or quotes around",
        ),
        # anchors
        (f"common: &c\n  retry: 3\n{SHIP}    <<: *c\n", 'write "x-common": keys that begin with "x-" are ignored'),
        (
            f"{SHIP}    <<: *c\n  .base: &c\n    retry: 3\n".replace("    <<: *c\n", ""),
            'move it to the top level as "x-base:"',
        ),
        # other maps and lists
        ("queues: {q: {dead_letter: {queue: q.bad}}}\n", "write `dead_letter: q.bad`"),
        (
            "queues: {q: {dead_letter: {exchange: x, routing_key: q.bad}}}\n",
            "write the name of the queue alone, as in `dead_letter: q.bad`",
        ),
        (f"{SHIP}    concurrency: {{min: 2, max: 8}}\n", 'write "concurrency: 8"'),
        ("shutdown: 30\n", 'write "shutdown: {grace: 30s}"'),
        (
            'queues: {q: {arguments: {x-dead-letter-exchange: "", x-dead-letter-routing-key: q.bad}}}\n',
            'write "dead_letter: q.bad" in the queue instead, in place of "x-dead-letter-exchange", too',
        ),
        ("include: [{local: parts/events.yaml}]\n", 'write "parts/events.yaml", without "local"'),
        ("telemetry: {prometheus: {port: 9090}}\n", 'write "http: 127.0.0.1:9090", in place of "prometheus"'),
        (
            "subscribers: {s: {queue: {name: orders}, handler: app:ship}}\n",
            'write "from: orders" in the subscriber, in place of "queue:"',
        ),
        ("subscribers: {s: {queue: [orders], handler: app:ship}}\n", 'write "from:"'),
        # a schema
        ("events:\n  paid: {schema: {type: object}}\n" + SHIP, "as in `schema: schemas/order.json`"),
    ],
)
def test_a_help_loses_nothing(text: str, help_: str) -> None:
    helps = [problem.help for problem in problems(QUEUES + text)]
    assert [found for found in helps if found.startswith(help_) or help_ in found], helps


def test_a_template_with_a_dollar_before_it_is_one_problem() -> None:
    found = [problem.help for problem in problems(f"broker: ${{{{ secrets.RABBITMQ_URL }}}}\n{QUEUES}{SHIP}")]
    assert found == ['write "${RABBITMQ_URL}" for a variable of the environment']


def test_an_unknown_key_is_never_told_to_be_removed() -> None:
    """What it means would be lost, and the rest be valid."""
    found = problems(f"{QUEUES}zzz: 1\n{SHIP}    yyy: 2\n    retry: {{xxx: 3}}\n")
    assert [problem.message for problem in found] == ['unknown key "zzz"', 'unknown key "yyy"', 'unknown key "xxx"']
    assert [problem.help for problem in found if "remove" in problem.help] == []
