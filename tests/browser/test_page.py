"""The page in Chromium, used as a person uses it: with eyes, keyboard and mouse."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.node import free_port
from tests.page import TOKEN, token_of
from tests.page import Page as Client
from tests.project import Project, until

pytestmark = pytest.mark.timeout(180)
expect.set_options(timeout=20_000)

PIPELINE = """
    version: 1
    description: "<img src=x onerror=document.title='hacked'>"
    telemetry: {http: "127.0.0.1:PORT"}
    queues: {UNIQUE.work: {}}
    producers: {bring: {http: /bring, to: UNIQUE.work}}
    subscribers: {hear: {from: UNIQUE.work, handler: work:hear, retry: none, description: "<b>bold</b>"}}
"""
HANDLERS = """
    import os
    class Bad(Exception): pass
    Bad.__name__ = "<img src=x onerror=document.title='hacked'>"
    def hear(order: dict) -> None:
        if not os.path.exists("mended"):
            raise Bad(f"<script>document.title='hacked'</script> {order['n']}")
        note(order["n"])
"""


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """The system's own Chromium."""
    path = shutil.which("chromium")
    assert path is not None, "Chromium is not installed: make browser"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


def prepare(project: Project) -> Client:
    client = Client(free_port())
    project.write(PIPELINE.replace("PORT", str(client.port)), HANDLERS)
    return client


def bring(client: Client, *numbers: int) -> None:
    for number in numbers:
        body = json.dumps({"n": number}).encode()
        assert client.send("POST", "/bring", body, {"Content-Type": "application/json"})[0] == 202


async def opened(chromium: Browser, url: str, *, width: int = 1280) -> tuple[Page, list[str]]:
    """Return the page at an address, and what its console complains of."""
    page = await chromium.new_page(viewport={"width": width, "height": 800})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(url)
    return page, complaints


async def test_a_failure_is_found_mended_and_sent_back(project: Project, chromium: Browser) -> None:
    """Open, read, unlock, open a dead letter, try it, send it back, see the number fall; nothing hostile has run."""
    client, dead = prepare(project), project.name("work.dead")
    async with project.running("--allow-actions", env={"RUNNER_TOKEN": TOKEN}):
        bring(client, 1, 2)
        await client.dead(dead, 2)
        page, complaints = await opened(chromium, f"http://127.0.0.1:{client.port}/")
        await expect(page.get_by_role("heading", level=1)).to_have_text(project.unique)
        await expect(page.locator("#status")).to_have_text("running")
        box = page.locator(f'[data-node="subscriber:{project.unique}.hear"]')
        await expect(box).to_contain_text("hear")
        tile = page.locator("#tiles div", has_text="Dead letters").locator("dd")
        await expect(tile).to_have_text("2")
        table = page.get_by_role("table", name="Subscribers")
        await expect(table.get_by_role("rowheader", name="hear")).to_be_visible()

        section = page.get_by_role("region", name=dead)
        await expect(section.get_by_role("button", name="Look")).to_be_hidden()
        await page.get_by_label("Token").fill("not the token at all")
        await page.keyboard.press("Enter")
        await section.get_by_role("button", name="Look").click()
        await expect(page.locator("#said")).to_contain_text("the token is wrong")
        await page.get_by_label("Token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await section.get_by_role("button", name="Look").click()
        await section.locator("summary").press("Enter")
        await section.get_by_role("button", name="Open").first.press("Enter")

        dialog = page.get_by_role("dialog")
        await expect(dialog.locator("#body")).to_contain_text('"n": 1')
        await expect(dialog).to_contain_text("<script>document.title='hacked'</script> 1")
        await expect(dialog).to_contain_text("raise Bad")
        await dialog.get_by_role("button", name="Try here").click()
        await expect(dialog.locator("#outcome")).to_contain_text("would be dead-lettered")
        (project.folder / "mended").touch()
        await dialog.get_by_role("button", name="Try here").click()
        await expect(dialog.locator("#outcome")).to_contain_text("handled by hear")
        await dialog.get_by_role("button", name="Send back").click()
        await expect(dialog).to_be_hidden()
        await expect(page.locator("#said")).to_contain_text("Sent back: 1 message.")
        await expect(tile).to_have_text("1")
        await section.locator("summary").click()
        await section.get_by_role("button", name="Send all 1 back").click()
        await expect(tile).to_have_text("0")
        await until(lambda: len(project.ledger.entries()) == 3, "tried once, and both handled")
        assert "hacked" not in await page.title()
        assert await page.locator("main b, main img").count() == 0
        assert [each for each in complaints if "401" not in each] == []


async def test_a_runner_that_is_lost_is_said_and_found_again(memory_project: Project, chromium: Browser) -> None:
    """The figures stay, and are said to be old; another runner on the port is another one, whose token is another."""
    client = prepare(memory_project)
    async with memory_project.running("--allow-actions") as runner:
        page, _ = await opened(chromium, f"http://127.0.0.1:{client.port}/#token={token_of(runner)}")
        await expect(page.locator("#status")).to_have_text("running")
        assert "token" not in page.url
    await expect(page.get_by_role("alert")).to_contain_text("The runner has not answered since", timeout=15_000)
    await expect(page.locator("#status")).to_have_text("lost")
    async with memory_project.running("--allow-actions") as runner:
        await expect(page.locator("#status")).to_have_text("running", timeout=20_000)
        await expect(page.locator("#lost")).to_be_hidden()
        await expect(page.locator("#said")).to_contain_text("It was restarted")
        bring(client, 1)
        await page.get_by_role("button", name="Look").click()
        await expect(page.get_by_label("Token")).to_be_focused()


@pytest.mark.parametrize("width", [360, 1600])
async def test_it_fits_its_window_and_keys_reach_everything(
    memory_project: Project, chromium: Browser, width: int
) -> None:
    """Nothing is wider than the window; Tab reaches the drawing and each button, and Escape closes the letter."""
    client = prepare(memory_project)
    async with memory_project.running("--allow-actions", env={"RUNNER_TOKEN": TOKEN}):
        bring(client, 1)
        await client.dead(memory_project.name("work.dead"), 1)
        page, complaints = await opened(chromium, f"http://127.0.0.1:{client.port}/#token={TOKEN}", width=width)
        look = page.get_by_role("button", name="Look")
        await expect(look).to_be_visible()
        reached = []
        for _ in range(12):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert "flow" in reached
        assert "Look" in reached
        await look.click()
        await page.locator("summary").click()
        await page.get_by_role("button", name="Open").click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert complaints == []


async def test_a_subscriber_is_paused_and_resumed(memory_project: Project, chromium: Browser) -> None:
    """By keyboard, on a narrow screen; the table says why. Without a token there is nothing to press."""
    client = prepare(memory_project)
    async with memory_project.running("--allow-actions", env={"RUNNER_TOKEN": TOKEN}):
        page, complaints = await opened(chromium, f"http://127.0.0.1:{client.port}/", width=360)
        pause = page.get_by_role("button", name="Pause", exact=True)
        await expect(page.locator("#status")).to_have_text("running")
        await expect(pause).to_be_hidden()
        await page.get_by_label("Token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await page.get_by_label("Reason").fill("<b>carrier</b> is down")
        await pause.press("Enter")
        await expect(page.locator("#said")).to_contain_text("hear is paused since")
        table = page.get_by_role("table", name="Subscribers")
        await expect(table.get_by_role("rowheader", name="hear")).to_contain_text(": <b>carrier</b> is down")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await page.get_by_role("button", name="Resume").press("Enter")
        await expect(page.locator("#said")).to_contain_text("hear was paused since")
        await expect(table.get_by_role("rowheader", name="hear")).not_to_contain_text("carrier")
        assert complaints == []
