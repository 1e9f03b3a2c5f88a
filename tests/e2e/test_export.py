"""`runner export`: a broker that imports the definitions has everything, and the permissions are enough and needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.foreign import Foreign
from tests.node import Broker, free_port
from tests.process import RunnerProcess
from tests.project import Place, Project, started, stop, until
from tests.security.conftest import PLAIN, add_user

EVERYTHING = """
    version: 1
    broker: {url: "BROKER"}
    exchanges:
      UNIQUE.headers: headers
      UNIQUE.fallback: {type: fanout}
      UNIQUE.direct: {type: direct, arguments: {alternate-exchange: UNIQUE.fallback}}
    events:
      UNIQUE.paid: {}
      UNIQUE.sent: {exchange: UNIQUE.shop, key: gone.out}
    queues:
      UNIQUE.work: {max_length: 100, max_bytes: 1MiB, message_ttl: 1h, events: [UNIQUE.paid]}
      UNIQUE.one: {single_active_consumer: true, delivery_limit: 5, dead_letter: UNIQUE.graves}
      UNIQUE.plain: {type: classic}
      UNIQUE.urgent: {type: classic, max_priority: 5, auto_delete: true, durable: false}
      UNIQUE.log: {type: stream, max_bytes: 10MB, message_ttl: 1d}
      UNIQUE.pdf:
        bind:
          - {exchange: UNIQUE.headers, headers: {kind: pdf, pages: 2, is_new: true}, match: all}
          - {exchange: UNIQUE.direct, key: pdf}
      UNIQUE.mine: {type: classic, exclusive: true}
    producers:
      maker: {handler: "work:make", to: {name: UNIQUE.work, delay: 1h}}
    subscribers:
      worker: {from: UNIQUE.work, handler: "work:handle", retry: {attempts: 4, delay: 1s}}
      hear: {from: ["UNIQUE.*", UNIQUE.sent], handler: "work:handle"}
      one: {from: UNIQUE.one, handler: "work:handle", order_by: id}
      mine: {from: UNIQUE.mine, handler: "work:handle"}
"""

SMALL = """
    version: 1
    broker: {topology: TOPOLOGY}
    events: {UNIQUE.paid: {exchange: UNIQUE.shop}}
    queues: {UNIQUE.work: {}, UNIQUE.done: {}}
    producers:
      make: {handler: "work:make", to: UNIQUE.work}
    subscribers:
      handle:
        from: UNIQUE.work
        handler: work:handle
        to: UNIQUE.paid
        retry: {attempts: 2, backoff: fixed, delay: 50ms}
      hear: {from: UNIQUE.paid, handler: "work:hear", to: UNIQUE.done, retry: none}
"""

HANDLERS = """
    from runner import Message, RetryLater

    def make():
        yield from ("good", "later", "bad")

    def handle(order: str, message: Message) -> str:
        note(order, message.attempt)
        if order == "later" and message.attempt == 1:
            raise RetryLater(after="120ms")
        if order == "bad" or (order == "good" and message.attempt == 1):
            raise RuntimeError("no")
        return order

    def hear(order: str) -> str:
        return order
"""

NEEDED = {
    "configure": (
        "UNIQUE.shop",
        "UNIQUE.work",
        "UNIQUE.work.dead",
        "UNIQUE.done",
        "UNIQUE.done.dead",
        "UNIQUE.hear",
        "UNIQUE.hear.dead",
        "UNIQUE.producers",
        "UNIQUE.retry",
    ),
    "write": ("amq.default", "UNIQUE.shop", "UNIQUE.hear", "UNIQUE.retry"),
    "read": ("UNIQUE.work", "UNIQUE.done", "UNIQUE.hear", "UNIQUE.producers", "UNIQUE.shop", "UNIQUE.retry"),
}
"""Which names are in which right; the wait queues are there as a pattern."""

PAUSES = {"configure": 1, "write": 0, "read": 1}
"""How many names more there are for the stream of pauses, without which everything runs."""

STUCK_S = 8.0
"""Some of those that have too few rights never become idle."""

REFUSALS = ("ACCESS_REFUSED", "permit", "no right to")


@pytest.fixture
def small(rabbit_project: Project) -> Project:
    """Retries, RetryLater, dead letters, an event, a queue and a producer, on the shared node."""
    rabbit_project.write(SMALL.replace("TOPOLOGY", "manage"), HANDLERS)
    return rabbit_project


async def export(project: Project, *arguments: str | Path, env: dict[str, str] | None = None) -> str:
    runner = await project.run_to_end("export", *arguments, env=env)
    return runner.stdout


async def rights_of(project: Project) -> dict[str, str]:
    found: dict[str, str] = json.loads(await export(project, "permissions", "--json", project.file))
    return {right: found[right] for right in ("configure", "write", "read")}


def as_user(project: Project, node: Broker, rights: dict[str, str]) -> None:
    user = f"{project.unique}-user"
    add_user(node, user, PLAIN, **rights)
    url = f"amqp://{quote(user)}:{PLAIN}@127.0.0.1:{node.port}/"
    project.place = Place.at(url)


async def works(project: Project, foreign: Foreign, *, knows_pauses: bool = True) -> bool:
    """Run it until idle, and say whether everything came where it should."""
    runner = await project.up_until_idle()
    assert ("pauses.unavailable" not in runner.stdout) is knows_pauses
    done = sorted(got.body for got in foreign.take(project.name("done")))
    return done == [b"good", b"later"] and [got.body for got in foreign.take(project.name("work.dead"))] == [b"bad"]


async def is_refused(project: Project, foreign: Foreign) -> bool:
    """Run it, and say whether the broker's refusal is told and not everything came where it should."""
    async with project.up("--until-idle") as runner:
        with contextlib.suppress(TimeoutError, AssertionError):
            await runner.wait(STUCK_S)
    is_told = any(words in runner.stdout + runner.stderr for words in REFUSALS)
    queues = [name for name in ("done", "work.dead") if foreign.has_queue(project.name(name))]
    return is_told and [foreign.count(project.name(name)) for name in queues] != [2, 1]


def cut(expression: str, name: str) -> str:
    """Return an expression with the name's last letter missing."""
    names = expression[2:-2].split("|")
    (index,) = (at for at, each in enumerate(names) if each == name or each.startswith(rf"{name}\.["))
    names[index] = names[index].replace(name, name[:-1])
    return f"^({'|'.join(names)})$"


@pytest.mark.parametrize("has_vhost", [False, True], ids=["default vhost", "own vhost"])
async def test_after_the_import_there_is_nothing_to_change(
    tmp_path: Path, unique: str, managed: Broker, has_vhost: bool
) -> None:
    """Typed arguments, header bindings, wait, dead-letter and leadership queues: `plan` finds no difference."""
    url = f"{managed.url}{unique if has_vhost else ''}"
    project = Project(tmp_path, unique, Place((), url))
    project.write(EVERYTHING.replace("BROKER", url), HANDLERS)
    await export(project, "definitions", project.file, "--output", "definitions.json")
    await asyncio.to_thread(managed.ctl, "import_definitions", str(tmp_path / "definitions.json"))
    if has_vhost:
        await asyncio.to_thread(managed.ctl, "set_permissions", "-p", unique, "guest", ".*", ".*", ".*")
    where = ("--management", managed.management_url)
    runner = await project.run_to_end("plan", project.file, "--detailed-exitcode", *where)
    assert "the broker matches the pipeline" in runner.stdout
    written = json.loads((tmp_path / "definitions.json").read_text())
    assert project.name("mine") not in {queue["name"] for queue in written["queues"]}
    assert "guest" not in (tmp_path / "definitions.json").read_text()


async def test_what_belongs_to_others_is_left_out_and_bound_to(tmp_path: Path, unique: str, managed: Broker) -> None:
    """An exchange with `declare: false` is not in the definitions; the binding of our queue to it is."""
    project = Project(tmp_path, unique, Place((), managed.url))
    project.pipeline(
        f"""
        version: 1
        broker: {{url: "{managed.url}"}}
        exchanges: {{UNIQUE.erp: {{type: topic, declare: false}}}}
        queues:
          UNIQUE.work: {{bind: [{{exchange: UNIQUE.erp, key: "stock.#"}}]}}
          UNIQUE.legacy: {{declare: false, type: classic}}
        subscribers: {{worker: {{from: UNIQUE.work, handler: "work:hear", to: UNIQUE.legacy, retry: none}}}}
        """
    )
    project.handlers(HANDLERS)
    with Foreign(managed.url) as other:
        other.channel.exchange_declare(project.name("erp"), "topic", durable=True)
        other.channel.queue_declare(project.name("legacy"), durable=True)
    await export(project, "definitions", project.file, "--output", "definitions.json")
    document = json.loads((tmp_path / "definitions.json").read_text())
    assert document["exchanges"] == []
    assert [queue["name"] for queue in document["queues"]] == [
        *(project.name("work.dead"), project.name("work"), f"{project.unique}.pauses")
    ]
    await asyncio.to_thread(managed.ctl, "import_definitions", str(tmp_path / "definitions.json"))
    where = ("--management", managed.management_url)
    await project.run_to_end("plan", project.file, "--detailed-exitcode", *where)


async def test_the_permissions_are_enough(small: Project, rabbitmq: Broker, foreign: Foreign) -> None:
    """From nothing: declare, bind, lead, publish, retry, RetryLater, dead-letter."""
    rights = await rights_of(small)
    as_user(small, rabbitmq, rights)
    assert await works(small, foreign)
    assert foreign.has_queue(f"{small.unique}.retry.120")
    named = {right: expression.count("|") + 1 for right, expression in rights.items()}
    assert named == {right: len(names) + PAUSES[right] for right, names in NEEDED.items()}


DELAYED = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.done: {}}
    producers: {make: {handler: "work:make", to: {name: UNIQUE.work, delay: 100ms}}}
    subscribers: {hear: {from: UNIQUE.work, handler: "work:hear", to: UNIQUE.done, retry: none}}
"""
IN_CODE = """
    from runner import Publish

    def make():
        yield Publish("later", delay="100ms")

    def hear(order: str) -> str:
        return order
"""


async def test_the_permissions_are_enough_for_delays(small: Project, rabbitmq: Broker, foreign: Foreign) -> None:
    """Declared at the start, because the file has a delay."""
    small.pipeline(DELAYED)
    as_user(small, rabbitmq, await rights_of(small))
    async with small.running():
        await until(lambda: foreign.has_queue(small.name("done")), "it has started")
        await until(lambda: foreign.count(small.name("done")) == 3, "all have arrived")


async def test_without_the_right_to_delay_the_log_says_what_to_write(
    small: Project, rabbitmq: Broker, foreign: Foreign
) -> None:
    """Only the code has a delay; with `delays` in the file the same rights are exported as with a delay in a `to`."""
    small.write(DELAYED.replace("{name: UNIQUE.work, delay: 100ms}", "UNIQUE.work"), IN_CODE)
    as_user(small, rabbitmq, await rights_of(small))
    async with small.up() as runner:
        failed = await runner.wait_for(lambda line: line["event"] == "producer.failed")
        await stop(runner)
    assert f'the queues that hold messages for "{small.name("work")}" cannot be declared' in failed["error"]
    assert "no right" in failed["error"]
    small.pipeline(DELAYED.replace("{name: UNIQUE.work, delay: 100ms}", "UNIQUE.work") + "    delays: UNIQUE.work\n")
    named = await rights_of(small)
    small.pipeline(DELAYED)
    assert named == await rights_of(small)


async def test_without_the_right_to_pauses_it_runs_and_says_so(
    small: Project, rabbitmq: Broker, foreign: Foreign
) -> None:
    """A user who was made before pipelines had pauses."""
    rights = await rights_of(small)
    for right in ("configure", "read"):
        rights[right] = cut(rights[right], rf"{small.unique}\.pauses")
    as_user(small, rabbitmq, rights)
    assert await works(small, foreign, knows_pauses=False)


@pytest.mark.slow
@pytest.mark.parametrize(("right", "name"), [(right, name) for right, names in NEEDED.items() for name in names])
async def test_with_one_letter_less_it_does_not_run(
    small: Project, rabbitmq: Broker, foreign: Foreign, right: str, name: str
) -> None:
    """Each name in each right is needed."""
    rights = await rights_of(small)
    rights[right] = cut(rights[right], name.replace("UNIQUE", small.unique).replace(".", r"\."))
    as_user(small, rabbitmq, rights)
    assert await is_refused(small, foreign)


async def test_to_verify_needs_no_right_to_configure(small: Project, rabbitmq: Broker, foreign: Foreign) -> None:
    """With `topology: verify` on imported definitions: write and read only, and RetryLater waits where it can."""
    definitions = small.folder / "definitions.json"
    definitions.write_text(await export(small, "definitions", small.file))
    await asyncio.to_thread(rabbitmq.ctl, "import_definitions", str(definitions))
    small.pipeline(SMALL.replace("TOPOLOGY", "verify"))
    rights = await rights_of(small)
    name = small.unique
    assert rights == {
        "configure": "^$",
        "write": rf"^(amq\.default|{name}\.retry\.50|{name}\.shop)$",
        "read": rf"^({name}\.hear|{name}\.pauses|{name}\.producers|{name}\.work)$",
    }
    as_user(small, rabbitmq, rights)
    assert await works(small, foreign)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "name"),
    [
        ("write", "amq.default"),
        ("write", "UNIQUE.shop"),
        ("write", "UNIQUE.retry.50"),
        ("read", "UNIQUE.hear"),
        ("read", "UNIQUE.producers"),
        ("read", "UNIQUE.work"),
    ],
)
async def test_to_verify_with_one_letter_less_it_does_not_run(
    small: Project, rabbitmq: Broker, foreign: Foreign, right: str, name: str
) -> None:
    """Each name in each right is needed there, too."""
    definitions = small.folder / "definitions.json"
    definitions.write_text(await export(small, "definitions", small.file))
    await asyncio.to_thread(rabbitmq.ctl, "import_definitions", str(definitions))
    small.pipeline(SMALL.replace("TOPOLOGY", "verify"))
    rights = await rights_of(small)
    rights[right] = cut(rights[right], name.replace("UNIQUE", small.unique).replace(".", r"\."))
    as_user(small, rabbitmq, rights)
    assert await is_refused(small, foreign)


async def test_the_line_to_copy_sets_these_permissions(small: Project, rabbitmq: Broker) -> None:
    """A shell splits it into the words that rabbitmqctl takes."""
    user = f"{small.unique}-copied"
    add_user(rabbitmq, user, PLAIN, "^$", "^$", "^$")
    text = await export(small, "permissions", small.file, "--user", user)
    program, *words = shlex.split(text.splitlines()[-1])
    assert program == "rabbitmqctl"
    await asyncio.to_thread(rabbitmq.ctl, *words)
    listed = await asyncio.to_thread(rabbitmq.ctl, "list_user_permissions", user, "--formatter", "json")
    (found,) = json.loads(listed)
    rights = await rights_of(small)
    assert {right: found[right] for right in rights} == rights
    assert PLAIN not in text


@pytest.mark.parametrize("kind", ["definitions", "permissions", "compose", "kubernetes"])
async def test_nothing_of_a_url_is_shown_and_twice_is_the_same(memory_project: Project, kind: str) -> None:
    """Neither the user nor the password nor the host, wherever the URL comes from; stdout equals the file."""
    memory_project.pipeline(
        """
        version: 1
        broker: {url: "${SHOP_URL}"}
        queues: {UNIQUE.work: {}}
        subscribers: {worker: {from: UNIQUE.work, handler: "work:hear"}}
        """
    )
    memory_project.handlers(HANDLERS)
    env = {"SHOP_URL": f"amqps://canary-user:{PLAIN}@canary-host/shop"}
    first = await export(memory_project, kind, memory_project.file, env=env)
    assert await export(memory_project, kind, memory_project.file, "--output", "out", env=env) == ""
    assert (memory_project.folder / "out").read_text() == first
    assert "canary" not in first
    assert PLAIN not in first
    if kind in ("compose", "kubernetes"):
        assert "SHOP_URL" in first
        assert "RUNNER_BROKER" not in first
        assert all(isinstance(each, dict) for each in yaml.safe_load_all(first))


async def test_the_compose_file_asks_a_running_pipeline_for_its_health(memory_project: Project) -> None:
    """Its command starts it, and its health check fails before that and succeeds then."""
    memory_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {}}
        subscribers: {worker: {from: UNIQUE.work, handler: "work:hear"}}
        """
    )
    memory_project.handlers(HANDLERS)
    text = await export(memory_project, "compose", memory_project.file, "--http", f"127.0.0.1:{free_port()}")
    service = yaml.safe_load(text)["services"]["runner"]
    how, program, *arguments = service["healthcheck"]["test"]
    assert (how, program) == ("CMD", "python")

    async def ask() -> int:
        nowhere = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=nowhere, stderr=nowhere)
        return await process.wait()

    assert await ask() != 0
    async with memory_project.run(*service["command"][1:]) as runner:
        await started(runner)
        assert await ask() == 0
        await stop(runner)


async def test_a_file_that_cannot_be_written_is_told(memory_project: Project) -> None:
    """Exit 1, no traceback."""
    memory_project.pipeline("version: 1\nqueues: {UNIQUE.work: {}}\n")
    runner = await _run(memory_project, "definitions", memory_project.file, "--output", "no/such/folder")
    assert "cannot write no/such/folder: no such file or directory" in runner.stderr


async def _run(project: Project, *arguments: Any, code: int = 1) -> RunnerProcess:
    return await project.run_to_end("export", *arguments, code=code)


async def test_an_invalid_pipeline_is_exit_78(memory_project: Project) -> None:
    """As everywhere."""
    memory_project.pipeline("version: 1\nqueue: {}\n")
    runner = await _run(memory_project, "kubernetes", memory_project.file, code=78)
    assert runner.stdout == ""


@pytest.mark.parametrize("kind", ["definitions", "permissions"])
async def test_what_is_only_for_rabbitmq_is_refused_in_a_file(memory_project: Project, kind: str) -> None:
    """With `--broker amqp://…` the same pipeline has them."""
    memory_project.pipeline("version: 1\nbroker: file:shop.queue\nqueues: {UNIQUE.q: {unread: ignore}}\n")
    runner = await memory_project.run_to_end("export", kind, memory_project.file, code=2)
    assert f"error: export {kind} needs RabbitMQ" in runner.stderr
