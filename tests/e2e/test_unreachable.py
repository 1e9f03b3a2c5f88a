"""A broker that is not there, or does not let us in: one clear line, the right exit code, and never the password."""

from __future__ import annotations

import signal

import pytest

from tests.foreign import Foreign
from tests.node import Broker, free_port
from tests.project import Project, until
from tests.proxy import Proxy

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle}
"""
HANDLERS = "def handle(order: str) -> None: note(order)"
SECRET = "S3CR3T"


def errors(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("error")]


def prepare(project: Project, broker: str = "memory") -> None:
    project.write(PIPELINE + f"    broker: {broker}\n", HANDLERS)


async def test_a_broker_that_is_not_there_ends_the_wait_with_one_clear_line(memory_project: Project) -> None:
    """Exit 69 after `connect_timeout`, naming the broker with its password masked, and what to do."""
    port = free_port()
    prepare(memory_project, "{url: '${URL}', connect_timeout: 700ms}")
    url = f"amqp://user:{SECRET}@127.0.0.1:{port}/shop"
    async with memory_project.run("up", memory_project.file, env={"URL": url}) as runner:
        assert await runner.wait(15) == 69
    (line,) = errors(runner.stderr)
    assert f"amqp://user:***@127.0.0.1:{port}/shop" in line
    assert "700ms" in line
    assert "refused" in line
    assert "= help:" in runner.stderr
    assert SECRET not in runner.stdout + runner.stderr
    assert "Traceback" not in runner.stderr
    unreachable = [line for line in runner.logs if line["event"] == "broker.unreachable"]
    assert len(unreachable) == 1


async def test_the_command_line_wins_over_the_file(memory_project: Project) -> None:
    """--broker replaces the file's URL and keeps its connect_timeout; RUNNER_BROKER does the same."""
    prepare(memory_project, "{url: 'amqp://127.0.0.1:1/', connect_timeout: 300ms}")
    port = free_port()
    url = f"amqp://user:{SECRET}@127.0.0.1:{port}/"
    for arguments, env in ((("--broker", url), {}), ((), {"RUNNER_BROKER": url})):
        async with memory_project.run("up", memory_project.file, *arguments, env=env) as runner:
            assert await runner.wait(15) == 69
        assert f"amqp://user:***@127.0.0.1:{port}/" in errors(runner.stderr)[0]
        assert SECRET not in runner.stdout + runner.stderr


@pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "silent"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_wait_for_a_broker(
    memory_project: Project, is_silent: bool, number: signal.Signals
) -> None:
    """Stopped while it still tries to connect: exit 0 at once, whether the port is closed or never answers."""
    prepare(memory_project)
    async with Proxy(1) as proxy:
        proxy.blackhole()
        port = proxy.port if is_silent else free_port()
        arguments = ("--broker", f"amqp://guest:guest@127.0.0.1:{port}/")
        async with memory_project.run("up", memory_project.file, *arguments) as runner:
            if is_silent:
                await until(lambda: proxy.accepted, "a connection")
            else:
                await runner.wait_for(lambda line: line["event"] == "broker.unreachable")
            runner.signal(number)
            assert await runner.wait(8) == 0
    assert "stopped before anything ran" in runner.stderr


@pytest.mark.parametrize("what", ["password", "user", "virtual host"])
async def test_a_refusal_is_not_waited_out(memory_project: Project, rabbitmq: Broker, what: str) -> None:
    """Wrong user, password or virtual host: exit 69 at once, saying that the broker refuses, and what to check."""
    prepare(memory_project)
    user, password, vhost = {
        "password": ("guest", SECRET, ""),
        "user": ("nobody", SECRET, ""),
        "virtual host": ("guest", "guest", "nowhere"),
    }[what]
    url = f"amqp://{user}:{password}@127.0.0.1:{rabbitmq.port}/{vhost}"
    async with memory_project.run("up", memory_project.file, "--broker", url) as runner:
        assert await runner.wait(20) == 69
    (line,) = errors(runner.stderr)
    assert f"amqp://{user}:***@127.0.0.1:{rabbitmq.port}/{vhost}" in line
    assert "refuses" in line
    assert {"virtual host": "virtual host"}.get(what, "password is wrong") in runner.stderr
    assert SECRET not in runner.stdout + runner.stderr
    assert "Traceback" not in runner.stderr


async def test_a_bad_url_on_the_command_line_does_not_show_its_password(memory_project: Project) -> None:
    """Whatever is wrong with a URL, the complaint is wrong usage (exit 2), without the password."""
    prepare(memory_project)
    for url in (
        f"amqp://user:{SECRET}@127.0.0.1/?nonsense=1",
        f"http://user:{SECRET}@127.0.0.1/",
        f"amqp://user:{SECRET}@127.0.0.1:port/",
        f"amqp://user:{SECRET}@/",
    ):
        runner = await memory_project.run_to_end("up", memory_project.file, "--broker", url, code=2)
        assert "--broker" in runner.stderr
        assert SECRET not in runner.stdout + runner.stderr


async def test_a_password_in_the_file_is_shown_by_no_verb(memory_project: Project, rabbitmq: Broker) -> None:
    """The warning about a password in the file points at it without repeating it, and so does everything else."""
    prepare(memory_project, f"amqp://guest:{SECRET}@127.0.0.1:{rabbitmq.port}/")
    for arguments in (("validate",), ("validate", "--format", "json"), ("up",), ("publish",)):
        rest = (memory_project.name("work"), "order") if arguments == ("publish",) else ()
        async with memory_project.run(*arguments, memory_project.file, *rest) as runner:
            await runner.wait(20)
        assert "plain-password" in runner.stdout + runner.stderr or arguments == ("publish",)
        assert SECRET not in runner.stdout + runner.stderr


async def test_a_queue_with_other_arguments_is_explained_and_nothing_is_touched(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Exit 69, naming the queue, the key, both values and the way out; the pipeline's other queue is not declared."""
    channel = foreign.channel
    channel.queue_declare(
        rabbit_project.name("limited"), durable=True, arguments={"x-queue-type": "classic", "x-max-length": 5}
    )
    channel.queue_declare(rabbit_project.name("fleeting"), durable=False)
    rabbit_project.pipeline(
        """
        version: 1
        queues:
          UNIQUE.a_new_one: {}
          UNIQUE.limited: {type: classic, max_length: 10, overflow: drop-head, dead_letter: false}
          UNIQUE.fleeting: {type: classic}
        subscribers:
          first: {from: UNIQUE.a_new_one, handler: work:handle}
          second: {from: UNIQUE.limited, handler: work:handle}
          third: {from: UNIQUE.fleeting, handler: work:handle}
        """
    )
    rabbit_project.handlers(HANDLERS)
    runner = await rabbit_project.do("up", code=69)
    said = runner.stderr
    assert f'queue "{rabbit_project.name("limited")}": x-max-length is 5 on the broker, the pipeline says 10' in said
    assert f'queue "{rabbit_project.name("fleeting")}": durable is false on the broker, the pipeline says true' in said
    assert "write `max_length: 5`" in said
    assert "write `durable: false`" in said
    assert "Traceback" not in said
    assert not any(line["event"] == "pipeline.started" for line in runner.logs)
    assert not foreign.has_queue(rabbit_project.name("a_new_one"))
    assert not foreign.has_queue(rabbit_project.name("limited.dead"))


async def test_a_queue_of_somebody_else_that_is_missing_is_not_created(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """`declare: false` promises that another program declares the queue: exit 69 while it has not."""
    rabbit_project.write(PIPELINE.replace("{}", "{declare: false}"), HANDLERS)
    runner = await rabbit_project.do("up", code=69)
    assert f'queue "{rabbit_project.name("work")}" does not exist' in runner.stderr
    assert not foreign.has_queue(rabbit_project.name("work"))


LOOKING = [
    ("status",),
    ("plan",),
    ("apply",),
    ("publish", "UNIQUE.work", "order"),
    ("tap", "UNIQUE.heard"),
    ("dead", "list"),
    ("dead", "replay"),
]


def looking(project: Project, verb: tuple[str, ...]) -> list[str]:
    """Return a command line; the pipeline comes before the verb's other arguments."""
    words = [word.replace("UNIQUE", project.unique) for word in verb]
    at = 2 if words[0] == "dead" else 1
    return [*words[:at], str(project.file), *words[at:]]


def prepare_looking(project: Project) -> None:
    project.write(PIPELINE.replace("queues:", "events: {UNIQUE.heard: {}}\n    queues:"), HANDLERS)


@pytest.mark.parametrize("verb", LOOKING, ids=" ".join)
@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
async def test_a_look_ends_at_the_first_refusal(memory_project: Project, verb: tuple[str, ...], host: str) -> None:
    """Exit 69 at once, with the reason; also where the file has a long connect_timeout, and a host has no address."""
    prepare_looking(memory_project)
    url = f"amqp://user:{SECRET}@{host}/"
    async with memory_project.run(*looking(memory_project, verb), "--broker", url) as runner:
        assert await runner.wait(12) == 69
    (line,) = errors(runner.stderr)
    assert line.startswith(f"error: cannot reach the broker amqp://user:***@{host}/: ")
    assert "--wait" in runner.stderr
    assert SECRET not in runner.stdout + runner.stderr


async def test_a_look_waits_as_long_as_it_is_told_and_says_for_what(memory_project: Project) -> None:
    """At once, what it waits for; at the end, the time that has passed."""
    prepare_looking(memory_project)
    url = f"amqp://user:{SECRET}@127.0.0.1:{free_port()}/"
    async with memory_project.run("status", memory_project.file, "--broker", url, "--wait", "3s") as runner:
        await until(lambda: "waiting for the broker amqp://user:***@" in runner.stderr, "it says so at once", 10)
        assert not runner.has_ended
        assert await runner.wait(15) == 69
    assert " after 3s: " in errors(runner.stderr)[0]
    assert "connection refused" in runner.stderr.splitlines()[0]


@pytest.mark.parametrize("verb", LOOKING[:4], ids=" ".join)
async def test_a_look_does_not_wait_for_a_broker_that_is_silent(
    memory_project: Project, rabbitmq: Broker, verb: tuple[str, ...]
) -> None:
    """The port takes connections and never answers: some five seconds, and a word after one."""
    prepare_looking(memory_project)
    async with Proxy(rabbitmq.port) as proxy:
        proxy.blackhole()
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
        async with memory_project.run(*looking(memory_project, verb), "--broker", url) as runner:
            await until(lambda: "waiting for the broker" in runner.stderr, "it says what it waits for", 10)
            assert await runner.wait(12) == 69
    assert len(errors(runner.stderr)) == 1


async def test_every_address_of_a_broker_is_tried_once(memory_project: Project, rabbitmq: Broker) -> None:
    """The first of a list may be the one that is away."""
    prepare_looking(memory_project)
    memory_project.pipeline(PIPELINE + f"    broker: {{urls: ['amqp://guest:guest@127.0.0.1:1/', '{rabbitmq.url}']}}\n")
    async with memory_project.run("status", memory_project.file) as runner:
        assert await runner.wait(20) == 0


async def test_what_modules_print_does_not_mix_with_what_a_verb_prints(
    memory_project: Project, rabbitmq: Broker
) -> None:
    """It goes to stderr: what reads --json must be able to."""
    prepare_looking(memory_project)
    memory_project.handlers("print('imported')\n" + HANDLERS)
    for words in (("status", "--json"), ("plan", "--json"), ("dead", "list", "--json"), ("export", "definitions")):
        line = looking(memory_project, words) if words[0] != "export" else [*words, str(memory_project.file)]
        async with memory_project.run(*line, "--broker", rabbitmq.url) as runner:
            assert await runner.wait(20) == 0, runner.stderr
        assert "imported" in runner.stderr
        assert "imported" not in runner.stdout
