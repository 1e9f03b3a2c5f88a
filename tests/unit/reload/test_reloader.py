"""A save makes a new version: messages stay, those in hand end with the old code, and what is wrong changes nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest

from runner.pipeline import sys_path
from tests.unit.reload.reloading import PIPELINE, Reloads, codes


@pytest.fixture
async def reloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reloads]:
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    reloads = Reloads(tmp_path)
    reloads.write("shop.yaml", PIPELINE)
    reloads.write("work.py", "def ship(order) -> None: note(f'1 {order}')")
    yield reloads
    sys_path._ADDED.clear()


async def test_a_module_is_reloaded(reloads: Reloads) -> None:
    async with reloads.running():
        await reloads.publish(1)
        await reloads.until(lambda: reloads.ledger() == ["1 1"])
        await reloads.save("work.py", "def ship(order) -> None: note(f'2 {order}')")
        assert await reloads.reloaded(1) == f"{reloads.folder / 'work.py'} · changed ship"
        await reloads.publish(2)
        await reloads.until(lambda: reloads.ledger() == ["1 1", "2 2"])
    assert reloads.report is not None
    assert (reloads.report.totals.handled, reloads.report.left_in_memory) == (2, 0)


async def test_what_is_there_at_the_start_costs_no_garbage_collection_and_may_go_with_its_version(
    reloads: Reloads,
) -> None:
    async with reloads.running():
        assert gc.get_freeze_count() > 10_000  # what was imported
        await reloads.save("work.py", "def ship(order) -> None: note(f'2 {order}')")
        await reloads.reloaded(1)
        assert gc.get_freeze_count() == 0  # it would have the garbage of the version before
    assert gc.get_freeze_count() == 0


async def test_a_schema_in_a_file_is_reloaded(reloads: Reloads) -> None:
    """Also a file that only a `$ref` names."""
    reloads.write("shop.yaml", PIPELINE.replace("orders: {}", "orders: {schema: order.json}"))
    reloads.write("order.json", '{"properties": {"id": {"$ref": "id.json"}}}')
    reloads.write("id.json", '{"type": "integer"}')
    async with reloads.running():
        await reloads.save("id.json", '{"type": "string"}')
        assert await reloads.reloaded(1) == f"{reloads.folder / 'id.json'}"
        await reloads.publish({"id": "a"})
        await reloads.until(lambda: reloads.ledger() == ["1 {'id': 'a'}"])


async def test_messages_in_hand_end_with_the_old_code_and_others_wait(reloads: Reloads) -> None:
    """The old handler imports something while it drains: it gets the old module."""
    reloads.write("prices.py", "PRICE = 'old'")
    slow = dedent("""
        import asyncio, pathlib
        async def ship(order) -> None:
            note(f"begun {order}")
            while not pathlib.Path(LEDGER + ".go").exists():
                await asyncio.sleep(0.01)
            import prices
            note(f"{VERSION} {prices.PRICE} {order}")
        """)
    reloads.write("work.py", "import prices\nVERSION = 'old'\n" + slow)
    reloads.write("shop.yaml", PIPELINE.replace("ship}", "ship, concurrency: 1}"))
    async with reloads.running():
        await reloads.publish(1, 2, 3)
        await reloads.until(lambda: reloads.ledger() == ["begun 1"])
        reloads.write("prices.py", "PRICE = 'new'")
        await reloads.save("work.py", "import prices\nVERSION = 'new'\n" + slow)
        await reloads.draining()
        (reloads.folder / "ledger.go").touch()
        await reloads.reloaded(1)
        await reloads.until(lambda: len(reloads.ledger()) == 6)
    assert [line for line in reloads.ledger() if "begun" not in line] == ["old old 1", "new new 2", "new new 3"]


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("shop.yaml", "version: 1\nqueues: {orders: {}\n", "yaml-syntax"),
        ("shop.yaml", "", "no-pipelines"),
        ("work.py", "def ship(order) -> None note(order)", "module-failed"),
        ("work.py", "raise SystemExit(3)", "module-failed"),
        ("work.py", "import prices, missing_one", "module-failed"),
        ("work.py", "def other(order) -> None: pass", "attribute-not-found"),
    ],
)
async def test_what_is_wrong_changes_nothing(reloads: Reloads, name: str, text: str, code: str) -> None:
    """The version that runs goes on, with what it imports lazily; and what is right again is run."""
    reloads.write("prices.py", "PRICE = 1")
    good = "def ship(order) -> None:\n    import prices\n    note(f'{VERSION} {prices.PRICE} {order}')\n"
    reloads.write("work.py", f"VERSION = 1\n{good}")
    before = (reloads.folder / name).read_text()
    async with reloads.running():
        await reloads.publish(1)
        await reloads.until(lambda: reloads.ledger() == ["1 1 1"])
        reloads.write("prices.py", "PRICE = 2")
        await reloads.save(name, text)
        assert await reloads.reloaded(1) == "the last good version goes on"
        assert codes(reloads.failures[0]) == [code]
        await reloads.publish(2)
        await reloads.until(lambda: reloads.ledger()[1:] == ["1 1 2"])
        (reloads.folder / name).write_text(before)
        reloads.report_change(reloads.folder / name)
        assert "changed ship" in await reloads.reloaded(2)
        await reloads.publish(3)
        await reloads.until(lambda: reloads.ledger()[2:] == ["1 2 3"])
    assert len(reloads.failures) == 1


async def test_a_file_that_is_written_in_two_steps_is_read_once(reloads: Reloads) -> None:
    async with reloads.running():
        await reloads.save("work.py", "def ship(order) -> None: (")
        await reloads.until(lambda: reloads.loader.has_failed)
        await reloads.save("work.py", "def ship(order) -> None: note(f'2 {order}')")
        assert "changed ship" in await reloads.reloaded(1)
    assert not reloads.failures


async def test_a_save_without_a_change_and_a_file_that_moves_away_and_back(reloads: Reloads) -> None:
    async with reloads.running():
        (reloads.folder / "work.py").rename(reloads.folder / "away")
        (reloads.folder / "away").rename(reloads.folder / "work.py")
        reloads.report_change(reloads.folder / "work.py", reloads.folder / "away")
        (reloads.folder / "shop.yaml").touch()
        reloads.report_change(reloads.folder / "shop.yaml")
        reloads.reloader.changes.force()
        assert await reloads.reloaded(1) == "by hand"
        await reloads.save("work.py", "def ship(order) -> None: note(f'2 {order}')")
        assert "changed ship" in await reloads.reloaded(2)


async def test_a_version_that_cannot_start(reloads: Reloads) -> None:
    """The last good one opens its resources again, and goes on."""
    text = "resources: {db: {factory: 'work:connect'}}\n"
    good = "def ship(order, db) -> None: note(f'{db} {order}')\ndef connect():\n    note('open')\n    return 'first'\n"
    reloads.write("shop.yaml", PIPELINE + "    " + text)
    reloads.write("work.py", good)
    async with reloads.running():
        bad = good.replace("return 'first'", "raise OSError('no database')")
        await reloads.save("work.py", bad)
        assert await reloads.reloaded(1) == "the last good version goes on"
        assert "no database" in str(reloads.failures[0])
        await reloads.publish(1)
        await reloads.until(lambda: "first 1" in reloads.ledger())
        await reloads.save("work.py", good.replace("first", "second"))
        await reloads.reloaded(2)
        await reloads.publish(2)
        await reloads.until(lambda: reloads.ledger()[-1] == "second 2")
    assert reloads.ledger().count("open") == 4


async def test_nothing_good_yet(reloads: Reloads) -> None:
    """A start with a mistake waits for its correction, also in a file that does not exist yet."""
    (reloads.folder / "work.py").unlink()
    async with reloads.running():
        assert await reloads.reloaded(1) == "waiting for a file to change"
        await reloads.save("work.py", "def ship(order) -> None: note(order)")
        assert await reloads.reloaded(2) == f"{reloads.folder / 'work.py'} · added ship"


async def test_pipelines_come_and_go(reloads: Reloads) -> None:
    other = "version: 1\nqueues: {parcels: {}}\nsubscribers: {pack: {from: parcels, handler: 'work:ship'}}\n"
    async with reloads.running():
        await reloads.save("depot.yaml", other)
        assert (await reloads.reloaded(1)).endswith("depot.yaml · added pack")
        await reloads.publish("p", to="parcels")
        await reloads.until(lambda: reloads.ledger() == ["1 p"])
        (reloads.folder / "depot.yaml").unlink()
        reloads.report_change(reloads.folder / "depot.yaml")
        assert (await reloads.reloaded(2)).endswith("depot.yaml · removed pack")


async def test_a_queue_that_is_not_used_any_more_keeps_its_messages(reloads: Reloads) -> None:
    """And they are there when it comes back, with other options."""
    text = PIPELINE.replace("{orders: {}}", "{orders: {}, later: {type: classic}}")
    reloads.write("shop.yaml", text)
    async with reloads.running():
        await reloads.publish(1, 2, to="later")
        await reloads.save("shop.yaml", PIPELINE)
        assert await reloads.reloaded(1) == 'queue "later" is not used any more, and keeps 2 messages'
        await reloads.reloaded(2)
        text = text.replace("{type: classic}", "{max_length: 9}") + "      late: {from: later, handler: work:ship}\n"
        await reloads.save("shop.yaml", text)
        assert (await reloads.reloaded(3)).endswith("added late")
        await reloads.until(lambda: sorted(reloads.ledger()) == ["1 1", "1 2"])


async def test_finite_producers_run_again_only_if_they_have_changed(reloads: Reloads) -> None:
    reloads.write("shop.yaml", PIPELINE + "    producers: {send: {handler: 'send:send', to: orders}}\n")
    reloads.write("send.py", "def send(): return 'a'")
    async with reloads.running():
        await reloads.until(lambda: reloads.ledger() == ["1 a"])
        await reloads.save("work.py", "def ship(order) -> None: note(f'2 {order}')")
        assert (await reloads.reloaded(1)).endswith("work.py · changed ship")
        await reloads.publish("x")
        await reloads.until(lambda: reloads.ledger()[1:] == ["2 x"])
        await reloads.save("send.py", "def send(): return 'b'")
        assert (await reloads.reloaded(2)).endswith("send.py · changed send")
        await reloads.until(lambda: reloads.ledger()[2:] == ["2 b"])


async def test_a_handler_that_writes_what_is_watched(reloads: Reloads) -> None:
    """The reloads end, with one line; another change makes the file count again."""
    async with reloads.running():
        for number in range(30):
            await reloads.save("work.py", f"def ship(order) -> None: note(f'{number} {{order}}')")
            await reloads.until(lambda: not reloads.reloader.changes.has_any.is_set() and not reloads._queue.qsize())
            if "ignored" in reloads.lines[-1]:
                break
            await reloads.reloaded(number + 1)
        line = f"{reloads.folder / 'work.py'}: changed after each of the last reloads"
        await reloads.until(lambda: reloads.lines[-1].startswith(f"reload {line}"))
        assert len(reloads.lines) <= 1 + 10 + 1
        count = len(reloads.lines)
        await reloads.save("work.py", "def ship(order) -> None: note('ignored')")
        await reloads.save("shop.yaml", PIPELINE + "      pack: {from: orders, handler: work:ship}\n")
        await reloads.until(lambda: len(reloads.lines) > count)
        assert reloads.lines[count].endswith("changed ship · added pack")


async def test_stop_while_a_version_drains(reloads: Reloads) -> None:
    """The one that waits for its turn never starts."""
    reloads.write(
        "work.py",
        """
        import asyncio, pathlib
        async def ship(order) -> None:
            note("begun")
            while not pathlib.Path(LEDGER + ".go").exists():
                await asyncio.sleep(0.01)
            note("done")
        """,
    )
    async with reloads.running():
        await reloads.publish(1)
        await reloads.until(lambda: reloads.ledger() == ["begun"])
        await reloads.save("work.py", "note('new version')\ndef ship(order) -> None: note('new')")
        await reloads.draining()
        await reloads.publish(2)
        reloads.stop.set()
        (reloads.folder / "ledger.go").touch()
    assert reloads.ledger() == ["begun", "new version", "done"]
    assert reloads.report is not None
    assert reloads.report.totals.handled == 1
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"


async def test_a_folder_that_is_deleted_and_comes_back(reloads: Reloads) -> None:
    text = {file: file.read_text() for file in reloads.folder.iterdir() if file.suffix in (".py", ".yaml")}
    async with reloads.running():
        for file in text:
            file.unlink()
        reloads.report_change(*text)
        assert await reloads.reloaded(1) == "the last good version goes on"
        await reloads.publish(1)
        await reloads.until(lambda: reloads.ledger() == ["1 1"])
        for file, content in text.items():
            file.write_text(content)
        reloads.report_change(*text)
        await reloads.reloaded(2)
        await asyncio.sleep(0)
