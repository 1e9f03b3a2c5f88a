"""S20: the page tells everybody no more than counts; what opens, tries, sends back and drops needs the token."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tests.node import free_port
from tests.page import TOKEN, Page, token_of
from tests.process import RunnerProcess
from tests.project import Project, stop, until

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e"
PIPELINE = """
    version: 1
    description: "</script><img src=x onerror=alert(1)>"
    queues: {UNIQUE.work: {}}
    producers: {work: {http: /work, to: UNIQUE.work}}
    subscribers:
      "<b>hear": {from: UNIQUE.work, handler: work:hear, retry: none, description: "<script>alert(2)</script>"}
"""
HANDLERS = f"""
    class Bad(Exception): pass
    Bad.__name__ = {HOSTILE!r}
    def hear(order) -> None:
        raise Bad({HOSTILE!r})
"""
DEAD = ("list", "open", "try", "replay", "drop")
ACTIONS = DEAD[2:]
PAUSING = ("pause", "resume")


@contextlib.asynccontextmanager
async def serving(
    project: Project, *options: str, token: str | None = TOKEN, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[RunnerProcess, Page]]:
    """Run a pipeline whose one message has failed; check at the end that it still runs."""
    port = free_port()
    project.write(PIPELINE, HANDLERS)
    env = {"RUNNER_TOKEN": token} if token else {}
    async with project.running("--http", f"{host}:{port}", *options, env=env) as runner:
        page = Page(port, token)
        assert (
            page.send("POST", "/work", b'{"secret": "of a customer"}', {"Content-Type": "application/json"})[0] == 202
        )
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
        await page.dead(project.name("work.dead"), 1)
        yield runner, page


def about(project: Project) -> dict[str, object]:
    return {"queue": project.name("work.dead"), "ids": ["x"], "id": "x"}


async def test_counts_need_no_token_and_letters_do(memory_project: Project) -> None:
    """Neither bodies, ids nor errors are told without it; classes of errors are counted, as in /metrics."""
    async with serving(memory_project, "--allow-actions") as (_, page):
        for token, status in ((None, 401), ("", 401), ("wrong" * 5, 401), (f"{TOKEN} ", 200), (TOKEN[:-1], 401)):
            page.token = token
            told = page.ask("list", about(memory_project))
            assert told[0] == status, token
            assert page.ask("pause", {}, "subscriber")[0] == (404 if status == 200 else status)
            assert ("customer" in str(told)) is False
        page.token = None
        answers = [page.ask(what, about(memory_project)) for what in DEAD]
        assert {status for status, _ in answers} == {401}
        shown = page.get("/-/state")[2] + page.get("/-/flow")[2] + str(answers)
        assert "of a customer" not in shown
        assert page.send("POST", "/-/dead/list", b"{}", {"Content-Type": "application/json"})[1]["www-authenticate"]


async def test_nothing_is_allowed_that_was_not_asked_for(memory_project: Project) -> None:
    """With a token and without --allow-actions the page reads; without a token it only counts."""
    async with serving(memory_project) as (_, page):
        assert page.ask("list", about(memory_project))[0] == 200
        assert [page.ask(what, about(memory_project))[0] for what in ACTIONS] == [403, 403, 403]
        assert [page.ask(what, {}, "subscriber")[0] for what in PAUSING] == [403, 403]
        assert page.counts() == {memory_project.name("work.dead"): 1}
        assert (page.state()["may_read"], page.state()["may_act"]) == (True, False)
    async with serving(memory_project, token=None) as (runner, page):
        page.token = TOKEN
        assert [page.ask(what, about(memory_project))[0] for what in DEAD] == [403] * 5
        assert (page.state()["may_read"], page.state()["may_act"]) == (False, False)
        assert "token" not in runner.stderr


async def test_a_token_that_is_made_is_printed_once_and_ends_with_its_runner(memory_project: Project) -> None:
    """On stderr, for the operator at the terminal; the log, which goes elsewhere, has none."""
    async with serving(memory_project, "--allow-actions", token=None) as (first, page):
        page.token = old = token_of(first)
        assert page.ask("list", about(memory_project))[0] == 200
    assert old not in first.stdout
    async with serving(memory_project, "--allow-actions", token=None) as (_, page):
        page.token = old
        assert [page.ask(what, about(memory_project))[0] for what in DEAD] == [401] * 5


async def test_a_token_that_was_given_is_printed_nowhere(memory_project: Project) -> None:
    async with serving(memory_project, "--allow-actions", "--log-level", "debug") as (runner, page):
        assert page.ask("replay", about(memory_project))[0] == 200
    assert TOKEN not in runner.stdout + runner.stderr


async def test_a_token_that_can_be_guessed_is_refused(memory_project: Project) -> None:
    memory_project.write(PIPELINE, HANDLERS)
    env = {"RUNNER_TOKEN": "guess-me"}
    runner = await memory_project.do("up", "--http", f"127.0.0.1:{free_port()}", "--allow-actions", env=env, code=2)
    assert "RUNNER_TOKEN must have at least 16 characters" in runner.stderr
    assert "guess-me" not in runner.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_pages_of_other_sites_can_do_nothing(memory_project: Project, host: str) -> None:
    """Forms and scripts elsewhere, and names that resolve to this machine, also with a token that was stolen."""
    async with serving(memory_project, "--allow-actions", host=host) as (_, page):
        here = f"127.0.0.1:{page.port}"
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://{here}.evil.example"},
            {"Origin": f"http://127.0.0.1:{page.port + 1}"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site", "Origin": f"http://{here}"},
            {"Host": "evil.example", "Origin": f"http://{here}"},
        ):
            for what in DEAD:
                assert page.ask(what, about(memory_project), **headers)[0] == 403, headers
        page.token = None  # a name that was bound anew has the right origin, and not our session's storage
        for what in DEAD:
            status, _ = page.ask(what, about(memory_project), Host="evil.example", Origin="http://evil.example")
            assert status in (401, 403)
        page.token = TOKEN
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            assert page.ask("drop", about(memory_project), Content_Type=kind)[0] == 415
        assert page.ask("list", about(memory_project), Origin=f"http://{here}", Sec_Fetch_Site="same-origin")[0] == 200
        assert page.counts() == {memory_project.name("work.dead"): 1}


async def test_what_is_no_request_is_refused_without_a_story(memory_project: Project) -> None:
    """Neither a traceback nor an action that was not said; a queue is named by the pipeline, not by the request."""
    queue = memory_project.name("work.dead")
    bad: list[object] = [
        b"",
        b"\xff",
        b"[" * 100_000,
        [],
        "x",
        {},
        {"queue": 7},
        {"queue": queue},
        {"queue": queue, "ids": []},
        {"queue": queue, "ids": "all"},
        {"queue": queue, "ids": [None]},
        {"queue": queue, "origin": None, "reason": None, "error_type": None},
        {"queue": "amq.gen-of-others", "ids": ["x"]},
    ]
    async with serving(memory_project, "--allow-actions") as (runner, page):
        for request in bad:
            for what in ("replay", "drop", "try"):
                status, told = page.ask(what, request)
                assert 400 <= status < 500, (request, told)
                assert set(told) == {"error"}
        assert page.counts() == {queue: 1}
    assert "Traceback" not in runner.stderr
    assert "Traceback" not in json.dumps([line for line in runner.logs if line["event"] != "message.dead_lettered"])


class Tags(HTMLParser):
    """Collects tags, and the attributes that could run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.dangerous: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.dangerous += [
            (tag, name, value)
            for name, value in attrs
            if name.startswith("on") or name in ("style", "src", "srcdoc", "action", "href")
        ]


async def test_the_page_runs_its_own_script_and_nothing_else(memory_project: Project) -> None:
    """No address outside, no inline handler; the policy names script and style by their hashes, on every answer."""
    async with serving(memory_project, "--allow-actions") as (_, page):
        status, headers, text = page.get("/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        for tag in ("script", "style"):
            (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
        assert {name: policy[name] for name in ("default-src", "connect-src", "base-uri", "form-action")} == {
            "default-src": "'none'",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
        }
        tags = Tags()
        tags.feed(text)
        assert tags.dangerous == [("link", "href", "data:,"), ("a", "href", "#dead")]
        assert re.findall(r"https?://[^\s\"']+", text) == ["http://www.w3.org/2000/svg"]
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
        for path in ("/", "/-/state", "/-/flow"):
            _, headers, _ = page.get(path)
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
        _, headers, _ = page.send("POST", "/-/dead/list", b"{}", {})
        assert headers["x-content-type-options"] == "nosniff"


async def test_what_strangers_write_is_data_and_never_markup(memory_project: Project) -> None:
    """Names, errors and bodies come as JSON, and the drawing as XML whose texts are texts."""
    async with serving(memory_project, "--allow-actions") as (_, page):
        _, headers, text = page.get("/-/state")
        assert headers["content-type"] == "application/json"
        assert "<b>hear" in [row["name"] for row in json.loads(text)["subscribers"]]
        assert "img src" not in page.get("/")[2]
        root = ElementTree.fromstring(page.get("/-/flow")[2])
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "title", "rect", "g", "text", "tspan", "path", "polygon"}
        queue = memory_project.name("work.dead")
        (group,) = (await page.act("list", {"queue": queue}))["groups"]
        letter = await page.act("open", {"queue": queue, "id": group["letters"][0]["id"]})
        assert json.loads(letter["body"]) == {"secret": "of a customer"}
        assert "onerror" in letter["facts"]["error"]


async def test_passwords_in_errors_are_masked(rabbit_project: Project) -> None:
    """A broker that cannot be reached is named without its password, and without its user."""
    port = free_port()
    rabbit_project.write(PIPELINE, HANDLERS)
    url = f"amqp://user:S3CR3T-CANARY@127.0.0.1:{free_port()}"
    arguments = ("--broker", url, "--http", f"127.0.0.1:{port}")
    async with rabbit_project.run("up", rabbit_project.file, *arguments) as runner:
        await runner.wait_for(lambda line: line["event"] == "broker.unreachable")
        await until(lambda: Page(port).state()["broker_error"], "why it cannot be reached")
        text = Page(port).get("/-/state")[2]
        assert "S3CR3T" not in text
        assert "user" not in json.loads(text)["runner"]["broker"]
        await stop(runner)
