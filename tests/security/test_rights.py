"""S15: a user of the broker that may do no more than it has to."""

from __future__ import annotations

import json
import signal
from urllib.parse import quote

import pytest

from tests.foreign import Foreign
from tests.node import Broker
from tests.process import RunnerProcess
from tests.project import Place, Project, started, stop, until
from tests.security.conftest import PLAIN, add_user

PIPELINE = """
    version: 1
    broker: {topology: TOPOLOGY}
    shutdown: {grace: 500ms}
    queues: {UNIQUE.work: {}, UNIQUE.done: {}}
    subscribers:
      handle:
        from: UNIQUE.work
        handler: work:handle
        to: UNIQUE.done
        retry: {attempts: 2, backoff: fixed, delay: 50ms}
"""
HANDLERS = """
    from runner import Message

    def handle(order: str, message: Message) -> str:
        note(order, message.attempt)
        if order == "bad" or message.attempt == 1:
            raise RuntimeError("no")
        return order
"""


def prepare(project: Project, topology: str) -> None:
    project.write(PIPELINE.replace("TOPOLOGY", topology), HANDLERS)


async def declared_by_an_operator(project: Project) -> None:
    """Let a user with all rights declare everything that the pipeline needs."""
    prepare(project, "manage")
    async with project.up() as runner:
        await started(runner)
        await stop(runner)


def as_user(project: Project, node: Broker, **rights: str) -> None:
    """Let the project run as a user with these rights alone, as regular expressions over names."""
    user = f"{project.unique}-user"
    add_user(node, user, PLAIN, **rights)
    url = f"amqp://{quote(user)}:{PLAIN}@127.0.0.1:{node.port}/"
    project.place = Place.at(url)


async def works(project: Project, foreign: Foreign) -> RunnerProcess:
    """Run it: a message that fails once, and one that fails for good."""
    async with project.running() as runner:
        foreign.publish(project.name("work"), b"good", b"bad")
        await runner.wait_for(lambda line: line["event"] == "message.handled")
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
    assert [got.body for got in foreign.take(project.name("done"))] == [b"good"]
    assert [got.body for got in foreign.take(project.name("work.dead"))] == [b"bad"]
    assert project.ledger.counts() == {"good": 2, "bad": 2}
    return runner


async def refused(project: Project) -> str:
    runner = await project.do("up", code=69)
    assert PLAIN not in runner.stdout + runner.stderr
    return "\n".join(line for line in runner.stderr.splitlines() if line.startswith(("error", "  = help", "     ")))


async def test_without_the_right_to_configure_it_runs_on_what_an_operator_declared(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker
) -> None:
    """`topology: ignore`: writes to the default exchange and the wait exchanges, reads its own queues; retries work."""
    await declared_by_an_operator(rabbit_project)
    name = rabbit_project.unique
    as_user(rabbit_project, rabbitmq, configure="^$", write=f"^(amq.default|{name}.*)$", read=f"^{name}.*$")
    prepare(rabbit_project, "ignore")
    await works(rabbit_project, foreign)


async def test_topology_can_be_verified_without_the_right_to_configure(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker
) -> None:
    """`topology: verify` changes nothing, so that it must not need the right to."""
    await declared_by_an_operator(rabbit_project)
    name = rabbit_project.unique
    as_user(rabbit_project, rabbitmq, configure="^$", write=f"^(amq.default|{name}.*)$", read=f"^{name}.*$")
    prepare(rabbit_project, "verify")
    await works(rabbit_project, foreign)


async def test_what_the_user_has_no_right_to_is_nothing_known_and_no_error(
    rabbit_project: Project, rabbitmq: Broker
) -> None:
    """The least rights do not include the dead-letter queue: `plan` and `status` go on without knowing it.

    Up to 4.2 RabbitMQ tells everybody how many messages a queue has, from 4.3 on nothing about it, not even that it
    exists.
    """
    await declared_by_an_operator(rabbit_project)
    name = rabbit_project.unique
    dead = rabbit_project.name("work.dead")
    as_user(rabbit_project, rabbitmq, configure="^$", write="^amq.default$", read=f"^{name}.work$")
    prepare(rabbit_project, "verify")
    runner = await rabbit_project.do("status", "--json")
    (pipeline,) = json.loads(runner.stdout)
    rows = {queue["queue"]: queue for queue in pipeline["queues"]}
    assert (rows[rabbit_project.name("work")]["ready"], rows[rabbit_project.name("work")]["exists"]) == (0, True)
    runner = await rabbit_project.do("plan", "--json")
    items = {item["name"]: item for item in json.loads(runner.stdout)["items"] if item["kind"] == "queue"}
    assert items[dead]["action"] == "unchecked"
    if rows[rabbit_project.name("work")]["dead"] is None:
        assert f'whether queue "{dead}" exists is not known' in items[dead]["text"]
    else:
        assert f'queue "{dead}" exists and was not compared' in items[dead]["text"]


@pytest.mark.parametrize("right", ["configure", "read"])
async def test_a_missing_right_is_told_with_what_it_is_missing_for(
    rabbit_project: Project, rabbitmq: Broker, right: str
) -> None:
    """Exit 69, naming the queue and the user, and what to do; no traceback, no password."""
    if right == "read":
        await declared_by_an_operator(rabbit_project)
    as_user(rabbit_project, rabbitmq, **{right: "^$"})
    prepare(rabbit_project, "manage" if right == "configure" else "ignore")
    said = await refused(rabbit_project)
    (line,) = (line for line in said.splitlines() if line.startswith("error:"))  # neither excerpts nor the checklist
    assert f'"{rabbit_project.unique}.' in line
    assert f"{rabbit_project.unique}-user" in line
    assert "= help: " in said


async def test_a_result_that_may_not_be_published_is_a_failed_attempt(
    rabbit_project: Project, rabbitmq: Broker, foreign: Foreign
) -> None:
    """Without the right to write, nothing is acknowledged away: the message is still there."""
    await declared_by_an_operator(rabbit_project)
    as_user(rabbit_project, rabbitmq, write="^$")
    prepare(rabbit_project, "ignore")
    foreign.publish(rabbit_project.name("work"), b"good")
    async with rabbit_project.up() as runner:
        await started(runner)
        await rabbit_project.ledger.wait_for(1)
        runner.signal(signal.SIGTERM)
        await runner.wait()
    assert PLAIN not in runner.stdout + runner.stderr
    await until(lambda: foreign.count(rabbit_project.name("work")) == 1, "the message is given back")


async def test_what_may_not_be_published_is_told(rabbit_project: Project, rabbitmq: Broker) -> None:
    """`publish` without the right to write: exit 69 or 1, naming what it may not write to."""
    await declared_by_an_operator(rabbit_project)
    as_user(rabbit_project, rabbitmq, write="^$")
    prepare(rabbit_project, "ignore")
    async with rabbit_project.command("publish", rabbit_project.name("work"), "order") as runner:
        assert await runner.wait(15) in (1, 69), runner.stderr
    assert "permit" in runner.stderr
