"""`--until-idle` ends with 0 only where it knows that nothing is left to do, also in the hands of other processes."""

from __future__ import annotations

import asyncio

import pytest

from tests.foreign import Foreign
from tests.node import Broker
from tests.project import Project, started

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: }
    subscribers: {work: {from: UNIQUE.work, handler: work:handle, concurrency: 1, prefetch: 1}}
"""
HANDLERS = """
    import asyncio, os
    async def handle(order: str) -> None:
        note(f"begin {order}")
        while order == "slow" and not os.path.exists("go"):
            await asyncio.sleep(0.01)
        note(f"end {order}")
"""


@pytest.fixture
def shop(managed_project: Project) -> Project:
    managed_project.write(PIPELINE, HANDLERS)
    return managed_project


async def test_it_waits_for_what_another_process_holds(shop: Project, managed: Broker) -> None:
    """The management API tells of it, some seconds late."""
    async with shop.running():
        with Foreign(managed.url) as other:
            other.publish(shop.name("work"), b"slow")
        await shop.ledger.wait_for(1)
        async with shop.up("--until-idle", "--management", managed.management_url) as second:
            await started(second)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(18):
                    await second.wait()
            (shop.folder / "go").touch()
            assert await second.wait(30) == 0, second.stderr
        assert shop.ledger.payloads() == ["begin slow", "end slow"]


async def test_without_the_management_api_it_does_not_know_and_says_so(shop: Project, managed: Broker) -> None:
    """Exit code 1, and which queue it is; alone it knows, and ends with 0."""
    async with shop.running():
        second = await shop.do("up", "--until-idle", code=1)
        assert "it is not known whether anything is left to do" in second.stderr
        assert f'queue "{shop.name("work")}" has 1 other consumer' in second.stderr
    await shop.up_until_idle()
