"""What a publisher says before it has a broker: about its file, its arguments, and a broker that does not answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner import (
    AsyncPublisher,
    BrokerUnavailable,
    NoAnswer,
    OutboxUnavailable,
    PipelineInvalid,
    Publisher,
    PublisherClosed,
    PublishFailed,
    PublishTimeout,
)
from tests.node import free_port
from tests.process import ROOT

SHOP = """
version: 1
queues: {work: {schema: 'shop_models:Order'}}
events: {order.placed: , order.shipped: {exchange: other}}
subscribers:
  ship: {from: order.placed, handler: 'no_such_module:handle', retry: {delay: 7s}}
"""
MODELS = "from pydantic import BaseModel\nclass Order(BaseModel):\n    order: int\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a pipeline with its models, and return its path. The import path is restored afterwards."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "shop_models.py").write_text(MODELS)

    def write(text: str = SHOP, name: str = "shop.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    yield write
    sys.modules.pop("shop_models", None)


@pytest.fixture
def nowhere() -> str:
    """The URL of a broker that does not listen."""
    return f"amqp://guest:guest@127.0.0.1:{free_port()}/"


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("runner-")}


def test_the_package_is_light_until_a_publisher_is_used() -> None:
    """Handlers import the package for `Message`: that must not import a broker's client."""
    code = (
        "import sys, runner; from runner import Message; light = 'aio_pika' in sys.modules\n"
        "from runner import Publisher; print(light, Publisher.__module__, hasattr(runner, 'Nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "runner.publisher", "False"]


def test_the_end_of_the_interpreter_closes_a_publisher_on_a_file(write: Write, tmp_path: Path) -> None:
    """Without a word: there are no executors any more, and what was published is in the file."""
    write("version: 1\nname: shop\nbroker: file:shop.queue\nqueues: {orders: }\n")
    script = "import runner; print(runner.Publisher('shop.yaml').publish('orders', 1))"
    env = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, "", 33)


def test_handlers_are_not_imported_and_schemas_are(write: Write, nowhere: str) -> None:
    with Publisher(write(), broker=nowhere, timeout=0) as shop:
        with pytest.raises(PublishFailed, match='schema of "work": order must be a whole number') as caught:
            shop.publish("work", {"order": "one"})
        assert caught.value.reason == "invalid"
        with pytest.raises(PublishTimeout):
            shop.publish("work", {"order": 1})
        with pytest.raises(NoAnswer, match='"work" was not asked within 0ms') as missing:
            shop.call("work", {"order": 1})
        assert missing.value.hint == "nothing was published"


def test_without_schemas_the_import_path_stays_as_it_is(write: Write, nowhere: str) -> None:
    """A Django project has an import path of its own."""
    before = sys.path.copy()
    Publisher(write(SHOP.replace("{schema: 'shop_models:Order'}", "")), broker=nowhere)
    assert sys.path == before


def test_an_unknown_name_is_answered_with_the_nearest(write: Write, nowhere: str) -> None:
    with Publisher(write(), broker=nowhere) as shop:
        with pytest.raises(PublishFailed, match='no queue or event of this pipeline is called "order') as caught:
            shop.publish("order.place", {})
        assert (caught.value.reason, caught.value.hint) == ("invalid", 'did you mean "order.placed"?')
        with pytest.raises(PublishFailed) as caught:
            shop.publish("x", {})
        assert caught.value.hint == "there are: work, order.placed, order.shipped"
        assert caught.value.__notes__ == [caught.value.hint], "a traceback shows it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": 17}, "a property must be text, not int"),
        ({"id": "x" * 300}, "a property has more than 255 bytes"),
        ({"key": "x" * 300}, "the routing key has more than 255 bytes"),
        ({"headers": {"a": object()}}, "a header's value cannot be a object"),
    ],
)
def test_what_amqp_cannot_carry_is_refused_at_once(
    write: Write, nowhere: str, arguments: dict[str, object], message: str
) -> None:
    with Publisher(write(), broker=nowhere) as shop, pytest.raises(PublishFailed, match=message):
        shop.publish("order.placed", {}, **arguments)  # type: ignore[arg-type]


def test_headers_of_the_runner_are_reserved(write: Write, nowhere: str) -> None:
    with Publisher(write(), broker=nowhere) as shop, pytest.raises(ValueError, match="belong to the runner"):
        shop.publish("order.placed", {}, headers={"x-runner-attempt": 3})


def test_a_wrong_file_is_reported_as_validate_reports_it(write: Write, nowhere: str) -> None:
    """The text of the error is what `runner validate` prints, and no frame of the runner's inside is above it."""
    with pytest.raises(PipelineInvalid, match="2 errors") as caught:
        Publisher(write("version: 1\nqueues: {work: {tipe: classic, schema: 'shop_models:Nope'}}"), broker=nowhere)
    assert "shop.yaml:2" in str(caught.value)
    assert "did you mean" in str(caught.value)
    assert {str(entry.path).rpartition("/")[2] for entry in caught.traceback} == {"test_publisher.py", "publisher.py"}


def test_a_file_or_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(PipelineInvalid) as caught:
        Publisher(tmp_path / "none.yaml")
    assert "there is no such file or folder" in str(caught.value)
    assert "none.yaml" in str(caught.value)


def test_the_in_process_broker_cannot_be_reached(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerUnavailable, match="which no other process can reach") as caught:
        Publisher(write())
    assert "set RUNNER_BROKER, or pass `broker=`" in caught.value.hint
    monkeypatch.setenv("RUNNER_BROKER", "amqp://localhost")
    Publisher(write())


@pytest.mark.parametrize("url", ["amqp://user@host", "http://host"])
def test_a_wrong_url(write: Write, url: str) -> None:
    with pytest.raises(ValueError, match="broker's URL"):
        Publisher(write(), broker=url)


def test_a_wrong_timeout(write: Write, nowhere: str) -> None:
    with pytest.raises(ValueError, match='timeout: "soon" is not a duration, such as 250ms, 30s or 5m'):
        Publisher(write(), broker=nowhere, timeout="soon")


def test_a_broker_that_does_not_answer(write: Write, nowhere: str, caplog: pytest.LogCaptureFixture) -> None:
    """The error says why, how long it was tried, and that an id is needed to repeat it."""
    with Publisher(write(), broker=nowhere, timeout="300ms") as shop:
        with pytest.raises(PublishTimeout) as caught:
            shop.publish("order.placed", {})
        assert str(caught.value).startswith(
            'the message for "order.placed" was not confirmed within 300ms: the broker amqp://guest:***@127.0.0.1:'
        )
        assert str(caught.value).endswith("cannot be reached: connection refused")
        assert "give it the same id" in caught.value.hint
        with pytest.raises(PublishTimeout, match="within 10ms"):
            shop.publish("order.placed", {}, timeout=0.01)
    assert threads() == set()


def test_too_many_that_wait_are_refused_at_once(write: Write, nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.publisher.CLOSE_S", 0.1)
    errors: list[Exception] = []
    shop = Publisher(write(), broker=nowhere, timeout=30, max_waiting=2)

    def publish() -> None:
        try:
            shop.publish("order.placed", {})
        except Exception as error:
            errors.append(error)
            if isinstance(error, PublishFailed):
                shop.close()  # which ends the others before their time

    waiting = [threading.Thread(target=publish) for _ in range(3)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert [type(error) for error in errors] == [PublishFailed, PublishTimeout, PublishTimeout]
    assert "2 messages wait for their confirm already" in str(errors[0])
    assert "was not confirmed before the publisher was closed" in str(errors[1])


def test_a_closed_publisher(write: Write, nowhere: str) -> None:
    shop = Publisher(write(), broker=nowhere)
    shop.close()
    shop.close()
    with pytest.raises(PublisherClosed, match="the publisher is closed"):
        shop.publish("order.placed", {})


async def test_a_closed_async_publisher(write: Write, nowhere: str) -> None:
    async with AsyncPublisher(write(), broker=nowhere, timeout=0) as shop:
        with pytest.raises(PublishTimeout):
            await shop.publish("order.placed", {})
    with pytest.raises(PublisherClosed):
        await shop.publish("order.placed", {})
    assert len(asyncio.all_tasks()) == 1


async def test_an_async_publisher_belongs_to_one_loop(write: Write, nowhere: str) -> None:
    async with AsyncPublisher(write(), broker=nowhere, timeout=0) as shop:

        def use() -> None:
            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                asyncio.run(shop.publish("order.placed", {}))

        await asyncio.to_thread(use)


def test_an_outbox_keeps_what_cannot_be_sent(write: Write, nowhere: str, tmp_path: Path) -> None:
    """The ids are those that `publish` returned; what is wrong in itself is no message of the outbox."""
    path = tmp_path / "outbox.db"
    with Publisher(write(), broker=nowhere, timeout=0.05, outbox=path, max_pending=3) as shop:
        assert shop.publish("work", {"order": 1}, id="o-1") == "o-1"
        began = time.monotonic()
        assert shop.publish("order.placed", {"order": 2}, id="o-2") == "o-2"
        assert time.monotonic() - began < 5, "it does not wait for the broker when others wait already"
        with pytest.raises(PublishFailed):
            shop.publish("work", {"order": "x"})
        shop.publish("work", {"order": 3}, timeout=30)
        assert shop.pending() == 3
        with pytest.raises(OutboxUnavailable, match="holds 3 messages"):
            shop.publish("work", {"order": 4})
    assert threads() == set()
    with Publisher(write(), broker=nowhere, outbox=path) as again:
        assert again.pending() == 3
        assert "runner-publisher" in threads(), "it sends what was left without being asked"


async def test_an_outbox_of_an_async_publisher(write: Write, nowhere: str, tmp_path: Path) -> None:
    async with AsyncPublisher(write(), broker=nowhere, timeout=0.05, outbox=tmp_path / "outbox.db") as shop:
        await shop.publish("work", {"order": 1})
        assert await shop.pending() == 1
    assert threads() == set()
