"""`telemetry: {traces: otlp}`: what a collector gets, by OpenTelemetry's conventions, on every broker."""

from __future__ import annotations

import asyncio
import http.client
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from textwrap import dedent

import pytest

from tests.collector import Collector
from tests.documents import File, steps
from tests.foreign import Foreign
from tests.node import free_port
from tests.process import ROOT
from tests.project import Project, lines, started, stop

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"

PIPELINE = """
    version: 1
    release: "2026.11"
    telemetry: {traces: otlp}
    queues: {UNIQUE.work: {}, UNIQUE.batches: {}}
    events: {UNIQUE.told: {}}
    producers: {send: {handler: work:send, to: UNIQUE.work}}
    defaults: {subscriber: {retry: {attempts: 2, delay: 10ms}}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:work}
      hear: {from: UNIQUE.told, handler: work:hear}
      batches: {from: UNIQUE.batches, handler: work:in_batches, batch: {size: 3, wait: 1h}}
"""
HANDLERS = f"""
    import asyncio, threading
    from opentelemetry import baggage, trace
    from runner import Message, Publish

    PARENT = {PARENT!r}

    def now():
        found = trace.get_current_span().get_span_context()
        return f"{{found.trace_id:032x}}-{{found.span_id:016x}}"

    def send():
        yield "tell"
        yield "again"
        yield "never"
        for number in range(3):
            yield Publish(number, to="UNIQUE.batches")

    async def work(kind: str, message: Message):
        if kind == "tell":
            return Publish("told", to="UNIQUE.told", headers={{"baggage": "tenant=north"}})
        if kind == "never" or message.attempt == 1:
            raise LookupError(f"no {{kind}} amqp://me:S3CR3T@host")

    def hear(payload, message: Message):
        with trace.get_tracer("shop").start_as_current_span("own work"):
            note(f"hear {{now()}} {{baggage.get_baggage('tenant')}}")

    def in_batches(numbers: list[int]) -> None: note(f"batch {{len(numbers)}} {{now()}}")
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


async def test_a_publication_is_a_span_and_so_is_each_attempt(project: Project, collector: Collector) -> None:
    """Names, kinds, parents, links and attributes of a flow: a queue, an event, a retry, a dead letter, a batch."""
    project.write(PIPELINE, HANDLERS)
    runner = await project.up_until_idle(env=collector.env)
    work, told = project.name("work"), project.name("told")
    system = "memory" if project.place.is_memory else "rabbitmq"
    ids = {line["trace_id"]: line["message_id"] for line in lines(runner, "message.published")}
    assert len(ids) == 6, "each message of a producer begins a trace"

    published = collector.named(f"publish {work}")
    assert [span.kind for span in published] == ["PRODUCER"] * 3
    assert all(not span.parent_id and not span.links and not span.is_error for span in published)
    for span in published:
        about = dict(span.attributes)
        assert bool(about.pop("server.address", None)) is bool(about.pop("server.port", None)) is (system == "rabbitmq")
        assert about.pop("messaging.rabbitmq.destination.routing_key", None) == (None if system == "memory" else work)
        assert about == {
            "messaging.system": system,
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": work,
            "messaging.destination.template": work,
            "messaging.message.id": ids[span.trace_id],
            "messaging.message.conversation_id": ids[span.trace_id],
            "runner.pipeline": project.unique,
        }
    resource = published[0].resource
    assert (resource["service.name"], resource["service.version"]) == (project.unique, "2026.11")
    assert resource["process.pid"] == runner.pid

    of_message = {span.attributes["messaging.message.id"]: span for span in published}
    attempts = collector.named(f"process {work}")
    assert len(attempts) == 5
    for span in attempts:
        creation = of_message[span.attributes["messaging.message.id"]]
        assert (span.kind, span.parent_id, span.links) == ("CONSUMER", creation.span_id, (creation.context,))
        assert span.trace_id == creation.trace_id
        assert span.attributes["messaging.operation.type"] == "process"
        assert span.attributes["messaging.destination.name"] == work
        assert span.attributes["runner.subscriber"] == "work"
        assert "messaging.batch.message_count" not in span.attributes
    ends = sorted((span.attributes["runner.attempt"], span.attributes["runner.outcome"]) for span in attempts)
    assert ends == [(1, "ack"), (1, "retry"), (1, "retry"), (2, "ack"), (2, "dead_letter")]
    for span in attempts:
        failed = span.attributes["runner.outcome"] != "ack"
        assert span.is_error is failed
        assert span.attributes.get("error.type") == ("LookupError" if failed else None)
        assert (span.description.startswith("no ") and "S3CR3T" not in span.description) is failed

    (retry, _), (dead,) = collector.named(f"retry {work}"), collector.named(f"dead_letter {work}")
    by_id = {span.span_id: span for span in attempts}
    for span in (retry, dead):
        assert span.kind == "CLIENT"
        assert span.attributes["messaging.operation.type"] == "settle"
        attempt = by_id[span.parent_id]
        assert span.links == attempt.links
        assert attempt.attributes["runner.outcome"] == span.attributes["messaging.operation.name"]
    assert retry.attributes["runner.delay_ms"] == 10
    assert dead.attributes["runner.dead_letter"] == project.name("work.dead")

    (event,) = collector.named(f"publish {told}")
    (tell,) = [span for span in attempts if span.span_id == event.parent_id]
    assert (event.trace_id, event.kind) == (tell.trace_id, "PRODUCER")
    (heard,) = collector.named(f"process {project.unique}.hear")
    assert (heard.parent_id, heard.links) == (event.span_id, (event.context,))
    assert heard.attributes["messaging.destination.name"] == f"events:{told}:{project.unique}.hear"
    assert event.attributes["messaging.destination.name"] == f"events:{told}"


async def test_a_batch_is_one_span_with_a_link_to_each_message(project: Project, collector: Collector) -> None:
    """It has no parent: its messages have traces of their own."""
    project.write(PIPELINE, HANDLERS)
    runner = await project.up_until_idle(env=collector.env)
    published = collector.named(f"publish {project.name('batches')}")
    batch = collector.one(f"process {project.name('batches')}")
    assert (batch.kind, batch.parent_id) == ("CONSUMER", "")
    assert batch.attributes["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in batch.attributes
    assert sorted(batch.links) == sorted(span.context for span in published)
    assert len({span.trace_id for span in published} | {batch.trace_id}) == 4
    ends = lines(runner, "message.handled", subscriber="batches")
    assert {(line["trace_id"], line["span_id"]) for line in ends} == {batch.context}


async def test_handlers_work_inside_the_span_and_so_do_their_log_lines(project: Project, collector: Collector) -> None:
    """Spans that a handler makes are its children, also in a thread; baggage reaches it; lines name trace and span."""
    project.write(PIPELINE, HANDLERS)
    runner = await project.up_until_idle(env=collector.env)
    heard = collector.one(f"process {project.unique}.hear")
    own = collector.one("own work")
    assert (own.trace_id, own.parent_id) == heard.context
    assert f"hear {own.trace_id}-{own.span_id} north" in project.ledger.payloads()
    batch = collector.one(f"process {project.name('batches')}")
    assert f"batch 3 {batch.trace_id}-{batch.span_id}" in project.ledger.payloads()
    (end,) = lines(runner, "message.handled", subscriber="hear")
    assert (end["trace_id"], end["span_id"]) == heard.context
    failed = {(line["trace_id"], line["span_id"]) for line in runner.logs if "error_type" in line}
    assert failed == {span.context for span in collector.named(f"process {project.name('work')}") if span.is_error}


async def test_a_handler_in_a_process_of_its_own_knows_the_span(project: Project, collector: Collector) -> None:
    """Its context is there; spans that it makes are not exported, unless its own code sets up an exporter."""
    project.write(PIPELINE.replace("handler: work:hear}", "handler: work:hear, run_in: process}"), HANDLERS)
    await project.up_until_idle(env=collector.env)
    heard = collector.one(f"process {project.unique}.hear")
    assert f"hear {heard.trace_id}-{heard.span_id} north" in project.ledger.payloads()
    assert not collector.named("own work")


async def test_a_foreign_context_is_the_parent_and_an_own_one_is_left_alone(
    rabbit_project: Project, foreign: Foreign, collector: Collector
) -> None:
    """What another program has published with a context; what a handler publishes with one of its choice; garbage."""
    project = rabbit_project
    project.pipeline(PIPELINE)
    project.handlers(
        "from runner import Publish\ndef send(): return []\ndef hear(payload) -> None: note(payload)\n"
        "def in_batches(payloads: list) -> None: ...\n"
        f"def work(kind: str): return Publish(1, to='UNIQUE.told', headers={{'traceparent': '{PARENT}', 'a': 'b'}})\n"
    )
    await project.up_until_idle(env=collector.env)
    foreign.publish(project.name("work"), b"theirs", headers={"traceparent": PARENT, "tracestate": "vendor=a"})
    foreign.publish(project.name("work"), b"garbage", headers={"traceparent": b"\xff", "tracestate": 5, "baggage": [1]})
    await project.up_until_idle(env=collector.env)
    first, second = sorted(collector.named(f"process {project.name('work')}"), key=lambda span: span.parent_id != SPAN)
    assert (first.trace_id, first.parent_id, first.links) == (TRACE, SPAN, ((TRACE, SPAN),))
    assert (second.parent_id, second.links) == ("", ())
    for span in collector.named(f"publish {project.name('told')}"):
        assert (span.kind, span.links) == ("CLIENT", ((TRACE, SPAN),))
    assert {span.parent_id for span in collector.named(f"process {project.unique}.hear")} == {SPAN}


async def test_a_replay_is_a_span_that_is_linked_to_the_publication(
    rabbit_project: Project, collector: Collector
) -> None:
    """The message keeps its context: the attempts after a replay belong to the trace that it began in."""
    project = rabbit_project
    project.write(PIPELINE, HANDLERS)
    await project.up_until_idle(env=collector.env)
    await project.run_to_end("dead", "replay", project.file, *project.place.arguments, env=collector.env)
    dead = collector.one(f"dead_letter {project.name('work')}")
    replay = collector.one(f"replay {project.name('work')}")
    assert (replay.kind, replay.links) == ("CLIENT", dead.links)
    assert replay.attributes["messaging.message.id"] == dead.attributes["messaging.message.id"]
    assert replay.attributes["messaging.operation.type"] == "send"
    await project.up_until_idle("--only", "work", env=collector.env)
    attempts = collector.named(
        f"process {project.name('work')}", messaging__message__id=dead.attributes["messaging.message.id"]
    )
    assert len(attempts) == 4
    assert {span.trace_id for span in attempts} == {dead.trace_id}


async def test_a_request_and_a_command_line_are_publications(rabbit_project: Project, collector: Collector) -> None:
    """The trace of a request goes on; without one, a new trace begins. `runner publish` makes spans, too."""
    project = rabbit_project
    project.pipeline(
        "version: 1\ntelemetry: {traces: otlp}\nqueues: {UNIQUE.work: {}}\n"
        "producers: {orders: {http: /orders, to: UNIQUE.work}}\n"
    )
    port = free_port()
    async with project.running("--http", f"127.0.0.1:{port}", env=collector.env) as runner:
        for headers in ({"traceparent": PARENT}, {}):
            assert await asyncio.to_thread(post, port, headers) == 202
    first, second = sorted(collector.named(f"publish {project.name('work')}"), key=lambda span: span.trace_id != TRACE)
    assert (first.trace_id, first.parent_id, first.kind) == (TRACE, SPAN, "PRODUCER")
    assert second.parent_id == ""
    assert [line["trace_id"] for line in lines(runner, "message.published")] == [TRACE, second.trace_id]
    body = (project.name("work"), "1")
    publish = await project.run_to_end("publish", project.file, *body, *project.place.arguments, env=collector.env)
    (third,) = collector.named(f"publish {project.name('work')}", messaging__message__id=publish.stdout.strip())
    assert third.kind == "PRODUCER"


def post(port: int, headers: dict[str, str], body: bytes = b"1") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/orders", body, {"Content-Type": "application/json", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


async def test_the_guide_tells_what_happens(memory_project: Project, collector: Collector) -> None:
    """docs/how-to/trace.md: its pipeline and its handlers make the spans that its table names, in one trace."""
    for step in steps((ROOT / "docs/how-to/trace.md").read_text()):
        if isinstance(step, File):
            (memory_project.folder / step.name).write_text(step.body)
    port = free_port()
    async with memory_project.run("up", "shop.yaml", "--http", f"127.0.0.1:{port}", env=collector.env) as runner:
        await started(runner)
        assert await asyncio.to_thread(post, port, {}, b'{"id": 7}') == 202
        await runner.wait_for(lambda line: line["event"] == "message.handled" and line["subscriber"] == "tell")
        await stop(runner)
    names = ("publish orders", "process orders", "print label", "publish order.shipped", "process shop.tell")
    order, ship, label, shipped, tell = map(collector.one, names)
    assert [span.parent_id for span in (ship, label, shipped, tell)] == [
        order.span_id,
        ship.span_id,
        ship.span_id,
        shipped.span_id,
    ]
    assert len(collector.all()) == 5
    assert len({span.trace_id for span in collector.all()}) == 1
    (printed,) = lines(runner, "stdout", text="order 7")
    assert (printed["trace_id"], printed["span_id"]) == tell.context


async def test_a_tracer_provider_of_the_users_code_is_used(memory_project: Project, collector: Collector) -> None:
    """As `opentelemetry-instrument` sets one: our spans go where the user's go, and the end waits for those, too."""
    memory_project.pipeline(PIPELINE)
    memory_project.handlers(
        "from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter\n"
        "from opentelemetry.sdk.resources import Resource\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import BatchSpanProcessor\n"
        "theirs = TracerProvider(resource=Resource.create({'service.name': 'theirs'}))\n"
        "theirs.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=60_000))\n"
        "from opentelemetry import trace\n"
        "trace.set_tracer_provider(theirs)\n" + dedent(HANDLERS)
    )
    await memory_project.up_until_idle(env=collector.env)
    assert len(collector.named(f"process {memory_project.name('work')}")) == 5
    assert {span.resource["service.name"] for span in collector.all()} == {"theirs"}


async def test_each_worker_exports(rabbit_project: Project, collector: Collector) -> None:
    """`--workers`: all spans arrive, from processes that name themselves."""
    project = rabbit_project
    project.pipeline(PIPELINE.replace("wait: 1h", "wait: 100ms"))  # two workers may share the messages of a batch
    project.handlers(HANDLERS.replace('yield "tell"', 'yield from ["tell"] * 60'))
    await project.up_until_idle("--workers", "2", env=collector.env)
    spans = collector.named(f"process {project.unique}.hear")
    assert len(spans) == 60
    assert len({span.resource["service.instance.id"] for span in spans}) == len(
        {span.resource["process.pid"] for span in spans}
    )
    assert {span.resource["service.name"] for span in spans} == {project.unique}


async def test_variables_say_who_we_are_and_how_much_is_exported(project: Project, collector: Collector) -> None:
    """OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER: also from a file of variables."""
    project.write(PIPELINE, HANDLERS)
    variables = {**collector.env, "OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "service.version=7,team=a"}
    (project.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    await project.up_until_idle("--env-file", ".env")
    resource = collector.all()[0].resource
    assert [resource[name] for name in ("service.name", "service.version", "team")] == ["shop", "7", "a"]
    count = len(collector.all())
    runner = await project.up_until_idle(env={**collector.env, "OTEL_TRACES_SAMPLER": "always_off"})
    assert len(collector.all()) == count
    assert all("trace_id" in line for line in lines(runner, "message.handled")), "a trace goes on where it is not kept"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL asks for grpc"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}, "traces cannot be exported"),
    ],
)
async def test_a_variable_that_cannot_be_followed_ends_the_start(
    memory_project: Project, variables: dict[str, str], said: str
) -> None:
    memory_project.write(PIPELINE, HANDLERS)
    runner = await memory_project.do("up", env=variables, code=78)
    assert said in runner.stderr


async def test_without_the_extra_validate_and_up_say_what_to_install(memory_project: Project) -> None:
    memory_project.write(PIPELINE, HANDLERS)
    (memory_project.folder / "without.py").write_text(
        "import sys\nsys.modules['opentelemetry'] = None\nfrom runner.cli import main\nmain()\n"
    )
    for verb in (("validate",), ("validate", "--no-imports"), ("up",)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "without.py", *verb, str(memory_project.file)),
            cwd=memory_project.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode == 78, out
        assert b"missing-extra" in out
        assert b'pip install "mqrunner[otel]"' in out


@pytest.mark.parametrize("behaviour", ["away", "hangs", "503", "400"])
async def test_a_collector_that_is_away_hangs_or_refuses_holds_nothing_up(
    memory_project: Project, collector: Collector, behaviour: str
) -> None:
    """Everything is handled, the end does not wait for long, and one line says that spans are lost."""
    memory_project.write(PIPELINE, HANDLERS.replace('yield "tell"', 'yield from ["tell"] * 5000'))
    variables = {**collector.env, "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
    if behaviour == "away":
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    elif behaviour == "hangs":
        collector.hang()
    else:
        collector.status = int(behaviour)
    runner = await memory_project.up_until_idle(env=variables)
    ended = datetime.now(UTC)
    assert bool(collector.requests) is (behaviour != "away")
    assert len([each for each in memory_project.ledger.payloads() if each.startswith("hear")]) == 5000
    assert 1 <= len(lines(runner, "traces.lost", level="warning")) <= 2
    (stopped,) = lines(runner, "pipeline.stopped")
    assert (ended - datetime.fromisoformat(stopped["timestamp"])).total_seconds() < 5
    assert not [line for line in runner.logs if line.get("logger")]
