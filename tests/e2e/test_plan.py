"""`runner plan`: what a live broker has of a pipeline, with and without the management API, and without changing it."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.foreign import Foreign
from tests.node import Broker
from tests.project import Place, Project, until

PIPELINE = """
    version: 1
    events: {UNIQUE.paid: {}}
    queues:
      UNIQUE.work: {max_length: 100, events: [UNIQUE.paid]}
    subscribers:
      worker: {from: UNIQUE.work, handler: "work:handle", retry: {attempts: 2, delay: 1s}}
    producers:
      maker: {handler: "work:make", to: UNIQUE.work}
"""

HANDLERS = """
    def handle(x: str) -> None: ...

    def make():
        yield "x"
"""


@pytest.fixture
def here(managed_project: Project) -> Project:
    """The pipeline, on the node with the management API."""
    managed_project.write(PIPELINE, HANDLERS)
    return managed_project


@pytest.fixture
def apart(here: Project, managed: Broker) -> Iterator[Project]:
    """The pipeline in a virtual host of its own on that node: what others have there is not seen."""
    with managed.vhost(here.unique) as url:
        here.place = Place.at(url)
        yield here


GUEST = b64encode(b"guest:guest").decode()
SILENT = "http://127.0.0.1:1"
"""Where no management API answers."""


async def plan_of(project: Project, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((await project.do("plan", "--json", *arguments)).stdout)
    return document


def told(document: dict[str, Any], action: str) -> list[str]:
    return [item["text"] for item in document["items"] if item["action"] == action]


def declare(other: Foreign, name: str, durable: bool = True, **arguments: Any) -> None:
    keyed = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    other.channel.queue_declare(name, durable=durable, arguments=keyed)


async def test_on_an_empty_broker_everything_is_to_be_created(here: Project) -> None:
    """Wait queues, dead-letter queues and the producers' leadership included; exit 2 only with --detailed-exitcode."""
    runner = await here.do("plan", "--detailed-exitcode", code=2)
    for name in ("work", "work.dead"):
        assert f'+ queue "{here.name(name)}": quorum, durable' in runner.stdout
    for name in (f"{here.unique}.retry.1000", f"{here.unique}.producers"):
        assert f'+ queue "{name}": quorum, durable' in runner.stdout
    assert f"+ binding events --{here.unique}.paid--> {here.name('work')}" in runner.stdout
    await here.do("plan")


@pytest.mark.parametrize("is_managed", [True, False])
async def test_after_up_there_is_nothing_to_change(here: Project, managed: Broker, is_managed: bool) -> None:
    """What `up` declares is what `plan` compares; without the management API bindings are honestly not checked."""
    await here.up_until_idle()
    where = ("--management", managed.management_url) if is_managed else ("--management", "http://127.0.0.1:1")
    runner = await here.do("plan", "--detailed-exitcode", *where)
    assert ("the broker matches the pipeline" in runner.stdout) is is_managed
    assert ("2 bindings: not checked, the management API does not answer" in runner.stdout) is not is_managed


@pytest.mark.parametrize("state", ["empty", "made"])
async def test_the_brokers_log_has_no_error_where_the_management_api_answers(
    apart: Project, managed: Broker, state: str
) -> None:
    """Operators read that log: what does not exist is known from the API, and not asked for over AMQP."""
    if state == "made":
        await apart.up_until_idle()
    before = len(managed.log())
    await apart.do("plan", "--management", managed.management_url)
    assert missed(managed, apart, before) == []


async def test_the_brokers_log_has_an_error_for_what_is_missing_without_the_management_api(
    apart: Project, managed: Broker
) -> None:
    """There is no other way to ask. Where everything is there, one question: whether a recreation was begun."""
    marker = f"exchange '{apart.unique}.recreations'"
    before = len(managed.log())
    document = await plan_of(apart, "--management", SILENT)
    wanted = [f"{item['kind']} '{item['name']}'" for item in document["items"] if item["action"] == "create"]
    things = [each for each in wanted if not each.startswith("binding")]
    things.append(marker)
    await until(lambda: sorted(missed(managed, apart, before)) == sorted(things), "the log says what is missing")
    await apart.up_until_idle()
    last = apart.name("last")
    with Foreign(str(apart.place.url)) as other:
        assert not other.has_queue(last)
    await until(lambda: f"queue '{last}'" in missed(managed, apart, before), "the log has all that came before")
    before = len(managed.log())
    await apart.do("plan", "--management", SILENT)
    await until(lambda: missed(managed, apart, before) == [marker], "the log has the one question")


def missed(node: Broker, project: Project, before: int) -> list[str]:
    """Return what the log says is missing, of what was asked for since. The broker writes it a moment later."""
    return re.findall(rf"no ((?:queue|exchange) '[^']*') in vhost '{project.unique}'", node.log()[before:])


async def test_every_difference_of_a_queue_is_named_over_amqp_alone(here: Project, other: Foreign) -> None:
    """The broker names one at a time: it is asked until it has nothing more to say."""
    declare(other, here.name("work"), durable=False, max_length=5, overflow="drop-head", message_ttl=7000)
    other.publish(here.name("work"), b"1", b"2", b"3")
    document = await plan_of(here)
    (item,) = [item for item in document["items"] if item["action"] == "recreate"]
    assert {each["key"]: (each["spec"], each["live"]) for each in item["differences"]} == {
        "durable": ("true", "false"),
        "x-queue-type": ("quorum", "classic"),
        "x-max-length": ("100", "5"),
        "x-overflow": ("reject-publish", "drop-head"),
        "x-message-ttl": ("none", "7000"),
        "x-dead-letter-exchange": ('""', "none"),
        "x-dead-letter-routing-key": (here.name("work.dead"), "none"),
    }
    assert item["messages"] == 3
    assert item["consumers"] == 0


async def test_up_refuses_to_start_in_the_same_words(here: Project, other: Foreign) -> None:
    """Exit 69, as for any broker that is not as it should be."""
    declare(other, here.name("work"), queue_type="quorum", max_length=5)
    other.publish(here.name("work"), b"1")
    planned = (await here.do("plan")).stdout.splitlines()
    refused = (await here.do("up", code=69)).stderr
    first = planned.index(f'  + queue "{here.name("work.dead")}": quorum, durable') + 1
    last = planned.index("      it must be recreated; it holds 1 message and has 0 consumers")
    lines = [line.strip().removeprefix("~ ") for line in planned[first : last + 1]]
    assert len(lines) > 5
    assert [line for line in lines if line not in refused] == []


async def test_reading_changes_nothing(apart: Project, managed: Broker) -> None:
    """The definitions of a virtual host are the same before and after, whatever is compared and however."""
    with Foreign(str(apart.place.url)) as other:
        declare(other, apart.name("work"), max_length=5)
        other.channel.exchange_declare("events", "topic", durable=True)
        other.channel.queue_bind(apart.name("work"), "events", "old")
    before = await asyncio.to_thread(definitions, managed, apart.unique)
    assert [queue["name"] for queue in before["queues"]] == [apart.name("work")]
    for arguments in ((), ("--json",), ("--management", managed.management_url), ("--detailed-exitcode",)):
        await apart.do("plan", *arguments, code=2 if "--detailed-exitcode" in arguments else 0)
    assert await asyncio.to_thread(definitions, managed, apart.unique) == before


async def test_a_queue_that_vanishes_while_it_is_compared_is_not_made(here: Project, other: Foreign) -> None:
    """Comparing is declaring: it is done so that it cannot create. The queue comes and goes all the time here."""
    name = here.name("work")
    async with asyncio.TaskGroup() as group:

        async def plan() -> None:
            for _ in range(4):
                await here.do("plan")

        planning = group.create_task(plan())
        channel = other.channel
        while not planning.done():
            channel.queue_declare(name, durable=True, arguments={"x-max-length": 5})
            await asyncio.sleep(0)
            channel.queue_delete(name)
            await asyncio.sleep(0)
    assert not other.has_queue(name)


async def test_stale_bindings_are_extra_where_the_management_api_tells(
    here: Project, other: Foreign, managed: Broker
) -> None:
    """An event that was renamed leaves its old binding behind."""
    await here.up_until_idle()
    other.channel.queue_bind(here.name("work"), "events", "old.name")
    document = await plan_of(here, "--management", managed.management_url)
    assert told(document, "extra") == [f"binding events --old.name--> {here.name('work')} is not in the pipeline"]
    assert document["changes"]
    assert document["complete"]
    assert told(await plan_of(here), "extra") == []


async def test_a_missing_binding_is_created_and_told(here: Project, other: Foreign, managed: Broker) -> None:
    """Somebody has unbound a queue: `plan` sees it, `apply` mends it."""
    await here.up_until_idle()
    other.channel.queue_unbind(here.name("work"), "events", here.name("paid"))
    where = ("--management", managed.management_url)
    wanted = [f"binding events --{here.name('paid')}--> {here.name('work')}"]
    assert told(await plan_of(here, *where), "create") == wanted
    assert f"created {wanted[0]}" in (await here.do("apply", *where)).stdout
    assert not (await plan_of(here, *where))["changes"]


async def test_what_is_somebody_elses_is_looked_for_and_not_made(here: Project, other: Foreign) -> None:
    """`declare: false`, and not there: a change that neither `plan` nor `apply` makes."""
    here.pipeline(PIPELINE.replace("{max_length: 100, events: [UNIQUE.paid]}", "{declare: false}"))
    runner = await here.do("plan", "--detailed-exitcode", code=2)
    assert f'! queue "{here.name("work")}" does not exist' in runner.stdout
    runner = await here.do("apply", code=1)
    assert f'! queue "{here.name("work")}" does not exist' in runner.stdout
    assert not other.has_queue(here.name("work"))


async def test_policies_are_told(here: Project, managed: Broker) -> None:
    """A policy acts on what was declared, though nobody declared it."""
    await here.up_until_idle()
    managed.ctl("set_policy", here.unique, here.name("work$"), '{"max-length": 3}', "--apply-to", "queues")
    said: list[str] = []
    async with asyncio.timeout(30):  # the management API is some seconds behind
        while not said:
            said = (await plan_of(here, "--management", managed.management_url))["notes"]
    managed.ctl("clear_policy", here.unique)
    assert said == [f'queue "{here.name("work")}": the policy "{here.unique}" also sets max-length 3']


async def test_an_exclusive_owner_is_named_as_a_difference(here: Project, other: Foreign) -> None:
    """A queue that another connection has for itself cannot be ours."""
    channel = other.channel
    channel.queue_declare(here.name("work"), exclusive=True)
    runner = await here.do("plan", "--detailed-exitcode", code=2)
    assert f'~ queue "{here.name("work")}" is exclusive to another connection\n' in runner.stdout
    runner = await here.do("up", code=69)
    assert f'error: queue "{here.name("work")}" is exclusive to another connection\n' in runner.stderr
    assert "help: give the queue another name, stop the connection that holds it, or remove" in runner.stderr


async def test_without_the_right_to_compare_that_is_said(here: Project, managed: Broker, other: Foreign) -> None:
    """Least privilege: what could not be compared is not in sync, and the right that is missing is named."""
    declare(other, here.name("work"), max_length=5)
    managed.ctl("add_user", here.unique, "secret-canary")
    managed.ctl("set_permissions", here.unique, "^$", ".*", ".*")
    url = managed.url.replace("guest:guest", f"{here.unique}:secret-canary")
    runner = await here.run_to_end("plan", here.file, "--broker", url, "--management", managed.management_url)
    who = f'the user "{here.unique}" has no right to (configure )?queue'  # RabbitMQ names the right since 4.0
    assert re.search(f'queue "{here.name("work")}" exists and was not compared: {who}', runner.stdout)
    assert "to compare needs the right to configure it" in runner.stdout
    assert f'refuses the user "{here.unique}"' in runner.stdout + runner.stderr
    applied = await here.run_to_end("apply", here.file, "--broker", url, code=69)
    assert "give the user the right to configure" in applied.stderr
    for text in (runner.stdout, runner.stderr, applied.stdout, applied.stderr):
        assert "secret-canary" not in text


async def test_the_api_of_another_broker_is_not_believed(
    rabbit_project: Project, managed: Broker, rabbitmq: Broker
) -> None:
    """Two brokers on one machine: the usual port may be the other one's."""
    rabbit_project.write(PIPELINE, HANDLERS)
    document = await plan_of(rabbit_project, "--management", managed.management_url)
    assert "belongs to another broker" in document["unchecked"]
    assert document["management"] is None


@pytest.mark.parametrize("verb", ["plan", "apply"])
async def test_the_in_process_broker_has_nothing_live(here: Project, verb: str) -> None:
    """Exit 2: it is the command line that is wrong."""
    runner = await here.run_to_end(verb, here.file, "--broker", "memory", code=2)
    assert "the pipeline runs on the in-process broker: there is no live broker to inspect" in runner.stderr
    assert "give --broker URL for another one" in runner.stderr


async def test_a_broker_that_is_away_is_exit_69(here: Project) -> None:
    """And no traceback."""
    here.pipeline(
        PIPELINE.replace("version: 1", "version: 1\n    broker: {url: 'amqp://127.0.0.1:1', connect_timeout: 1s}")
    )
    runner = await here.run_to_end("plan", here.file, code=69)
    assert "cannot reach the broker" in runner.stderr


@pytest.mark.parametrize("url", ["rabbit:15672", "ftp://rabbit", "http://", "http://rabbit:1/?a=b"])
async def test_a_wrong_management_url_is_a_usage_error(here: Project, url: str) -> None:
    """Exit 2, with what to write."""
    runner = await here.do("plan", "--management", url, code=2)
    assert "is not the URL of a management API" in runner.stderr


def definitions(node: Broker, vhost: str) -> Any:
    """Return everything that is defined in a virtual host: queues, exchanges, bindings, policies and parameters."""
    request = Request(f"{node.management_url}/api/definitions/{vhost}", headers={"Authorization": f"Basic {GUEST}"})
    with urlopen(request, timeout=20) as answer:
        return json.load(answer)


async def test_a_broker_in_a_file_is_compared_beside_its_owner(tmp_path: Path, unique: str) -> None:
    """Before the first run, while `up` runs, and after it; a difference as on RabbitMQ. Nothing else says it."""
    project = Project(tmp_path, unique, Place.at("file:shop.queue"))
    project.write(PIPELINE, HANDLERS)
    assert "plan: " in (await project.do("plan")).stdout
    assert not (tmp_path / "shop.queue").exists()
    async with project.running() as runner:
        beside = await project.do("plan", "--detailed-exitcode")
        assert "the broker matches the pipeline" in beside.stdout
        assert "shop.queue" in beside.stderr
        assert "management" not in beside.stderr
    project.pipeline(PIPELINE.replace("max_length: 100", "max_length: 50"))
    runner = await project.do("plan", "--detailed-exitcode", code=2)
    assert "x-max-length is 100 on the broker, the pipeline says 50" in runner.stdout
    applied = await project.do("apply", "--recreate", project.name("work"))
    assert applied.stdout.startswith(f'changed queue "{project.name("work")}"; it keeps')
    await project.up_until_idle("--only", "worker")
