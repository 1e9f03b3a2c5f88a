"""Trace headers go wherever a message goes: to its results, retries, dead letter and replay. No library is needed."""

from __future__ import annotations

import asyncio
import http.client
import json

from tests.foreign import Foreign
from tests.node import free_port
from tests.project import Project, lines

TRACE, OTHER, SPAN = "0af7651916cd43dd8448eb211c80319c", "1" * 32, "b7ad6b7169203331"
CONTEXT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=a", "baggage": "tenant=north"}
OWN = f"00-{OTHER}-{SPAN}-00"

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.batches: {}, UNIQUE.out: {}}
    events: {UNIQUE.told: {}}
    producers: {send: {handler: work:send, to: UNIQUE.work}}
    defaults: {subscriber: {retry: {attempts: 2, delay: 10ms}}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:work, to: UNIQUE.out}
      batches: {from: UNIQUE.batches, handler: work:in_batches, batch: {size: 2, wait: 1h}, to: UNIQUE.out}
      hear: {from: UNIQUE.told, handler: work:see}
      see: {from: UNIQUE.out, handler: work:see}
"""
HANDLERS = f"""
    import json
    from runner import Message, Publish

    CONTEXT = {CONTEXT!r}
    OWN = {OWN!r}
    WORK = ("return", "yield", "event", "own", "retry", "dead", "invalid")

    def send():
        for kind in WORK:
            yield Publish(kind, headers={{**CONTEXT, "tenant": "north"}})
        yield Publish("no trace")
        yield Publish("garbage", headers={{**CONTEXT, "traceparent": "00-garbage"}})
        for name, headers in (("same", (CONTEXT, CONTEXT)), ("different", (CONTEXT, {{"traceparent": OWN}}))):
            for each in headers:
                yield Publish(name, to="UNIQUE.batches", headers=each)

    def work(kind: str, message: Message):
        if kind == "yield":
            return (f"yielded {{number}}" for number in range(2))
        if kind == "event":
            return Publish("told", to="UNIQUE.told", headers={{"extra": "1"}})
        if kind == "own":
            return Publish("own", headers={{"traceparent": OWN}})
        if kind == "dead" or (kind == "retry" and message.attempt == 1):
            raise ValueError(kind)
        return f"result of {{kind}} {{message.attempt}}"

    def in_batches(kinds: list[str]): return f"batch of {{kinds[0]}}"

    def see(payload, message: Message) -> None:
        note(json.dumps([payload, dict(message.headers)]))
"""


def seen(project: Project) -> dict[str, dict[str, str]]:
    """Return the headers of each message that was seen, by payload, without those that are ours."""
    found = map(json.loads, project.ledger.payloads())
    return {
        payload: {name: value for name, value in headers.items() if not name.startswith("x-")}
        for payload, headers in found
    }


async def test_results_and_retries_have_the_trace_headers_of_their_message(project: Project) -> None:
    """Returned, yielded, told as an event, from a second attempt, from a batch; a handler's own headers win."""
    project.write(PIPELINE, HANDLERS)
    runner = await project.up_until_idle()
    baggage = {"baggage": CONTEXT["baggage"]}
    assert seen(project) == {
        "result of return 1": CONTEXT,
        "yielded 0": CONTEXT,
        "yielded 1": CONTEXT,
        "told": {**CONTEXT, "extra": "1"},
        "own": {**baggage, "traceparent": OWN},
        "result of retry 2": CONTEXT,
        "result of invalid 1": CONTEXT,
        "result of no trace 1": {},
        "result of garbage 1": baggage,  # by W3C an invalid traceparent is none, and no new one is made up
        "batch of same": CONTEXT,
        "batch of different": {},
    }
    traces = {line["message_id"]: line.get("trace_id") for line in runner.logs if line["event"] == "message.published"}
    assert sorted(filter(None, traces.values())) == sorted([*[TRACE] * 10, OTHER])
    ends = [line for line in runner.logs if "duration_ms" in line]
    assert {line["event"] for line in ends} == {"message.handled", "message.retry", "message.dead_lettered"}
    assert all(traces.get(line["message_id"]) == line.get("trace_id") for line in ends if line["message_id"] in traces)
    (told,) = [line for line in ends if line["subscriber"] == "hear"]
    assert told["trace_id"] == TRACE


async def test_dead_letters_and_replays_keep_the_trace_headers(rabbit_project: Project, foreign: Foreign) -> None:
    """The dead letter is the message as it came, also where its headers are garbage, and so is its replay."""
    project = rabbit_project
    project.write(PIPELINE, HANDLERS)
    await project.up_until_idle("--only", "see")
    garbage = {"traceparent": "00-garbage", "tracestate": "vendor=a"}
    for headers in (CONTEXT, garbage):
        foreign.publish(project.name("work"), b"dead", headers=headers)
    await project.up_until_idle("--only", "work")
    await project.run_to_end("dead", "replay", project.file, *project.place.arguments)
    names = CONTEXT.keys()
    got = [
        {name: value for name, value in each.headers.items() if name in names}
        for each in foreign.take(project.name("work"))
    ]
    assert got == [CONTEXT, garbage]


async def test_a_request_lends_its_trace_to_the_message(rabbit_project: Project, foreign: Foreign) -> None:
    """`http:` producers; `runner publish --header` does the same for a command line."""
    project = rabbit_project
    project.pipeline("version: 1\nqueues: {UNIQUE.work: {}}\nproducers: {orders: {http: /orders, to: UNIQUE.work}}\n")
    port = free_port()
    async with project.running("--http", f"127.0.0.1:{port}") as runner:
        for headers in (CONTEXT, {"Traceparent": "00-garbage", "tracestate": "vendor=a"}, {}):
            assert await asyncio.to_thread(post, port, headers) == 202
    header = f"traceparent={CONTEXT['traceparent']}"
    await project.run_to_end(
        "publish", project.file, project.name("work"), "1", "--header", header, *project.place.arguments
    )
    assert [dict(each.headers) for each in foreign.take(project.name("work"))] == [
        CONTEXT,
        {},
        {},
        {"traceparent": CONTEXT["traceparent"]},
    ]
    assert [line.get("trace_id") for line in lines(runner, "message.published")] == [TRACE, None, None]


def post(port: int, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/orders", b"1", {"Content-Type": "application/json", **headers})
        return connection.getresponse().status
    finally:
        connection.close()
