"""The page of a runner as its script uses it: by HTTP, and without a browser."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from typing import Any

from tests.process import RunnerProcess
from tests.project import until

TOKEN = "a-token-that-nobody-guesses"


class Page:
    """Asks the page that listens on a loopback port; `token` is sent with requests about dead letters."""

    def __init__(self, port: int, token: str | None = TOKEN) -> None:
        self.port = port
        self.token = token

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        """Return the status, the headers by their small names, and the body; status 0 where nobody listens."""
        return self.send("GET", path, None, headers)

    def state(self) -> dict[str, Any]:
        """Return what the page shows."""
        status, _, body = self.get("/-/state")
        assert status == 200, body
        told: dict[str, Any] = json.loads(body)
        return told

    def ask(self, what: str, about: object, kind: str = "dead", **headers: str) -> tuple[int, dict[str, Any]]:
        """Ask something about dead letters, or a subscriber; return the status and the answer."""
        given = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = about if isinstance(about, bytes) else json.dumps(about).encode()
        status, _, text = self.send("POST", f"/-/{kind}/{what}", body, given | named)
        return status, json.loads(text)

    async def act(self, what: str, about: object, kind: str = "dead") -> dict[str, Any]:
        """Ask something that has to succeed; the loop goes on meanwhile."""
        status, told = await asyncio.to_thread(self.ask, what, about, kind)
        assert status == 200, told
        return told

    async def dead(self, queue: str, count: int) -> None:
        """Return when the page says that this dead-letter queue has so many messages."""
        await until(lambda: self.counts().get(queue) == count, f"{count} dead letters: {self.counts()}")

    def counts(self) -> dict[str, int | None]:
        """Return how many dead letters there are, by queue."""
        return {queue["name"]: queue["dead"] for queue in self.state()["dead"]}

    def send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], str]:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return (
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read().decode(),
            )
        except ConnectionRefusedError:
            return 0, {}, ""
        finally:
            connection.close()


def token_of(runner: RunnerProcess) -> str:
    """Return the token that a runner has printed."""
    found = re.findall(r"#token=(\S+)", runner.stderr)
    assert len(found) == 1, runner.stderr
    return str(found[0])
