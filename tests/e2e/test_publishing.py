"""`runner publish`: from the command line into a queue or an event, confirmed before the command ends."""

from __future__ import annotations

import asyncio

import pytest

from tests.foreign import Foreign, Got
from tests.process import RunnerProcess
from tests.project import Project

PIPELINE = """
    version: 1
    queues:
      UNIQUE.orders: {}
      UNIQUE.checked: {schema: work:Order}
    events:
      UNIQUE.paid:
    subscribers:
      handle: {from: UNIQUE.orders, handler: work:handle}
      hear: {from: UNIQUE.paid, handler: work:handle}
      check: {from: UNIQUE.checked, handler: work:handle}
"""
HANDLERS = """
    from pydantic import BaseModel
    class Order(BaseModel):
        number: int
    def handle(payload) -> None: note(payload)
"""


async def publish(project: Project, name: str, *arguments: str, stdin: bytes = b"", code: int = 0) -> RunnerProcess:
    project.write(PIPELINE, HANDLERS)
    names = [project.name(name)] if name else []
    broker = project.place.arguments
    return await project.run_to_end("publish", project.file, *names, *arguments, *broker, stdin=stdin, code=code)


def bodies(got: list[Got]) -> list[tuple[bytes, str]]:
    return [(each.body, each.properties.content_type) for each in got]


async def test_an_argument_is_a_message(rabbit_project: Project, foreign: Foreign) -> None:
    """It is in the queue when the command has ended, durable, and its id is printed; no runner has to be up."""
    runner = await publish(rabbit_project, "orders", "订单编号: 54321")
    (got,) = foreign.take(rabbit_project.name("orders"))
    assert bodies([got]) == [("订单编号: 54321".encode(), "text/plain")]
    assert runner.stdout.split() == [got.properties.message_id]
    assert got.properties.delivery_mode == 2
    assert got.properties.app_id == rabbit_project.unique
    assert runner.stderr == ""


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        ('{"order": 1}', "application/json"),
        ("[1, 2]", "application/json"),
        ("17", "application/json"),
        ("order 17", "text/plain"),
    ],
)
async def test_what_parses_as_json_is_json(
    rabbit_project: Project, foreign: Foreign, payload: str, content_type: str
) -> None:
    """JSON goes byte for byte as JSON, all else as text."""
    await publish(rabbit_project, "orders", payload)
    assert bodies(foreign.take(rabbit_project.name("orders"))) == [(payload.encode(), content_type)]


async def test_a_file_is_a_message(rabbit_project: Project, foreign: Foreign) -> None:
    """@FILE publishes its content as it stands, bytes that are no text included."""
    (rabbit_project.folder / "order.bin").write_bytes(b"\xff\x00\n")
    await publish(rabbit_project, "orders", "@order.bin")
    assert bodies(foreign.take(rabbit_project.name("orders"))) == [(b"\xff\x00\n", "application/octet-stream")]


async def test_a_file_that_is_not_there_is_wrong_usage(memory_project: Project) -> None:
    """@FILE that cannot be read: exit 2, naming the file."""
    runner = await publish(memory_project, "orders", "@missing.json", code=2)
    assert "missing.json" in runner.stderr


@pytest.mark.parametrize("arguments", [(), ("-",)], ids=["by default", "by -"])
async def test_standard_input_is_a_message(
    rabbit_project: Project, foreign: Foreign, arguments: tuple[str, ...]
) -> None:
    """Without a payload, or with -, the message is what standard input holds."""
    await publish(rabbit_project, "orders", *arguments, stdin=b'{"order": 1}\n')
    assert bodies(foreign.take(rabbit_project.name("orders"))) == [(b'{"order": 1}\n', "application/json")]


async def test_each_line_is_a_message(rabbit_project: Project, foreign: Foreign) -> None:
    """--lines publishes line by line, in order, without the line ends and the empty lines; one id each."""
    lines = [f"order {number}" for number in range(1100)]
    text = "\r\n".join(lines[:10]) + "\n\n" + "\n".join(lines[10:])
    runner = await publish(rabbit_project, "orders", "--lines", "-", stdin=text.encode())
    got = foreign.take(rabbit_project.name("orders"))
    assert [each.body.decode() for each in got] == lines
    assert runner.stdout.split() == [each.properties.message_id for each in got]


async def test_a_byte_order_mark_is_not_published(rabbit_project: Project, foreign: Foreign) -> None:
    """Of a file with lines, and of one message."""
    mark = b"\xef\xbb\xbf"
    await publish(rabbit_project, "orders", "--lines", "-", stdin=mark + b'{"id": 1}\r\n{"id": 2}\r\n')
    await publish(rabbit_project, "orders", "-", stdin=mark + b'{"id": 3}')
    got = foreign.take(rabbit_project.name("orders"))
    assert [each.body for each in got] == [b'{"id": 1}', b'{"id": 2}', b'{"id": 3}']
    assert {each.properties.content_type for each in got} == {"application/json"}
    runner = await publish(rabbit_project, "orders", "--lines", "-", stdin="1\n".encode("utf-16"), code=2)
    assert "it is UTF-16 or UTF-32: save it as UTF-8" in runner.stderr


async def test_lines_end_only_at_line_breaks(rabbit_project: Project, foreign: Foreign) -> None:
    """Separators that only Unicode or old terminals know belong to the line."""
    line = "a\x0bb\x0cc\x1cd\x85e\u2028f"
    await publish(rabbit_project, "orders", "--lines", "-", stdin=f"{line}\nnext\n".encode())
    assert [got.body.decode() for got in foreign.take(rabbit_project.name("orders"))] == [line, "next"]


async def test_an_event_reaches_its_listeners(rabbit_project: Project, foreign: Foreign) -> None:
    """The listeners' queues are declared first, so that nothing is lost while none of them runs."""
    await publish(rabbit_project, "paid", '{"order": 1}')
    (got,) = foreign.take(f"{rabbit_project.unique}.hear")
    assert got.properties.type == rabbit_project.name("paid")
    assert (got.exchange, got.routing_key) == ("events", rabbit_project.name("paid"))


async def test_a_payload_that_breaks_the_schema_is_refused(rabbit_project: Project, foreign: Foreign) -> None:
    """Exit 1, saying which field is wrong; nothing is published, not even the good lines before it."""
    runner = await publish(
        rabbit_project, "checked", "--lines", "-", stdin=b'{"number": 1}\n{"number": "many"}\n', code=1
    )
    assert "error: line 2: the payload does not fit" in runner.stderr
    assert "number" in runner.stderr
    assert "; nothing was published" in runner.stderr
    assert rabbit_project.name("checked") in runner.stderr
    assert not foreign.has_queue(rabbit_project.name("checked"))


async def test_an_unknown_name_is_wrong_usage(rabbit_project: Project, foreign: Foreign) -> None:
    """Exit 2 and a guess; nothing is declared."""
    runner = await publish(rabbit_project, "ordres", "x", code=2)
    assert f'did you mean "{rabbit_project.name("orders")}"?' in runner.stderr
    assert not foreign.has_queue(rabbit_project.name("orders"))


async def test_the_in_process_broker_cannot_be_published_to(memory_project: Project) -> None:
    """Exit 2, because it lives inside `runner up`, and what to do instead."""
    runner = await publish(memory_project, "orders", "x", code=2)
    assert "the in-process broker exists only inside `runner up`" in runner.stderr
    assert "--broker" in runner.stderr


async def test_what_was_published_is_handled(rabbit_project: Project) -> None:
    """`runner publish`, then `runner up`: the handler gets the payload."""
    await publish(rabbit_project, "orders", "one order")
    await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.payloads() == ["one order"]


async def test_headers_travel_along(rabbit_project: Project, foreign: Foreign) -> None:
    """--header NAME=VALUE, several of them, on every message."""
    headers = ("--header", "tenant=acme", "--header", "note=a=b ", "--lines")
    await publish(rabbit_project, "orders", "-", *headers, stdin=b"one\ntwo\n")
    for got in foreign.take(rabbit_project.name("orders")):
        assert {name: got.headers[name] for name in ("tenant", "note")} == {"tenant": "acme", "note": "a=b "}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--header", "tenant"),
        ("--header", "=x"),
        ("--header", "x-runner-attempt=9"),
        ("--rate", "fast"),
        ("--rate", "0/s"),
    ],
)
async def test_bad_options_are_wrong_usage(memory_project: Project, arguments: tuple[str, ...]) -> None:
    """Exit 2, naming the option."""
    runner = await publish(memory_project, "orders", "x", *arguments, code=2)
    assert arguments[0] in runner.stderr


async def test_a_rate_holds_it_back(rabbit_project: Project, foreign: Foreign) -> None:
    """At 20 a second, 11 messages take half a second, in order."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    lines = [str(number) for number in range(11)]
    await publish(rabbit_project, "orders", "--lines", "--rate", "20/s", "-", stdin="\n".join(lines).encode())
    assert loop.time() - started > 0.5
    assert [got.body.decode() for got in foreign.take(rabbit_project.name("orders"))] == lines


async def test_a_folder_has_the_name_in_one_of_its_pipelines(rabbit_project: Project, foreign: Foreign) -> None:
    """It is published as that one; a name that several have, or none, is wrong usage that names the files."""
    for name in ("one", "two"):
        subscriber = "{from: UNIQUE.NAME, handler: 'json:loads'}"
        text = "version: 1\nname: UNIQUE-NAME\nevents: {UNIQUE.both: }\nqueues: {UNIQUE.NAME: }\n"
        text += f"subscribers: {{x: {subscriber}, y: {{from: UNIQUE.both, handler: 'json:loads'}}}}\n"
        rabbit_project.pipeline(text.replace("NAME", name), f"p/{name}.yaml")

    async def send(name: str, code: int) -> RunnerProcess:
        arguments = ("publish", "p", rabbit_project.name(name), "{}", *rabbit_project.place.arguments)
        return await rabbit_project.run_to_end(*arguments, code=code)

    for name in ("one", "two"):
        await send(name, 0)
        (got,) = foreign.take(rabbit_project.name(name))
        assert got.properties.app_id == f"{rabbit_project.unique}-{name}"
    assert "2 pipelines have" in (ambiguous := (await send("both", 2)).stderr)
    assert "p/one.yaml, p/two.yaml" in ambiguous
    assert f'did you mean "{rabbit_project.name("two")}"?' in (await send("twoo", 2)).stderr
