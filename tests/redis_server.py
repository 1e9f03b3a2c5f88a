"""A private Redis on loopback, started by the tests: Debian's `redis-server`, whose own service stays off."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import Self

import pytest

from tests.node import Folder

START_S = 20.0


def redis_command() -> str:
    """Return the server's command. Without one, skip the test; under CI, fail it."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        reason = "Redis is not installed: `make test` installs it where there is apt-get"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


class RedisServer:
    """A server that can be killed and started again. What it knows is on the disk before it answers."""

    def __init__(self) -> None:
        self._command = redis_command()
        self._folder = Folder("redis")
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        """Its URL, with the password."""
        return f"redis://:secret@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "requirepass": "secret",
            "dir": self._folder.path,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
        command = [self._command, *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
        self._process = self._folder.run(command, {"HOME": str(self._folder.path)}, "redis.log")
        deadline = time.monotonic() + START_S
        while self.ask("PING") != b"+PONG\r\n":
            assert time.monotonic() < deadline, "Redis does not answer"
            assert self._process.poll() is None, "Redis has ended"
            time.sleep(0.02)

    def ask(self, *words: str) -> bytes:
        """Send a command, and return the raw answer; b"" where the server cannot be reached."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as client:
                client.sendall(b"AUTH secret\r\n" + " ".join(words).encode() + b"\r\n")
                with client.makefile("rb") as lines:
                    assert lines.readline() in (b"+OK\r\n", b"")
                    return lines.readline()
        except OSError:
            return b""

    def kill(self) -> None:
        """Kill it, as `kill -9` does. Idempotent."""
        if self._process is not None:
            self._folder.end(self._process)
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.close()
