"""The real `runner` in a process of its own, with its output, its log lines and its end.

async with RunnerProcess("up", "pipeline.yaml", cwd=tmp_path) as runner:
    await runner.wait_for(lambda line: line["event"] == "pipeline.started")
    runner.signal(signal.SIGTERM)
    assert await runner.wait() == 0
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent

PASSED_ON = ("RUNNER_PLAIN_AMQP",)

LogLine = dict[str, Any]


class RunnerProcess:
    """A `runner` command line, running in `cwd`. Ends, with all its children, at the end of the `async with` block.

    The environment is clean: PATH, LANG, a HOME of its own, and `env`; RUNNER_PLAIN_AMQP is passed on where it is set,
    so that any test can run on the client's public way. `stdin` is all that standard input holds.
    """

    def __init__(
        self, *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self._cwd = cwd
        self._env = dict(env or {})
        self._stdin = stdin
        self._out = bytearray()
        self._err = bytearray()
        self._logs: list[LogLine] = []
        self._parsed_to = 0
        self._grown = asyncio.Condition()
        self._has_ended = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, and all its output is here."""
        return self._has_ended

    @property
    def stdout(self) -> str:
        return self._out.decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self._err.decode(errors="replace")

    @property
    def logs(self) -> list[LogLine]:
        """The complete lines of stdout so far that are JSON objects."""
        end = self._out.rfind(b"\n") + 1
        for line in bytes(self._out[self._parsed_to : end]).splitlines():
            with contextlib.suppress(ValueError):
                if isinstance(value := json.loads(line), dict):
                    self._logs.append(value)
        self._parsed_to = max(self._parsed_to, end)
        return self._logs

    async def wait_for(self, predicate: Callable[[LogLine], object], timeout: float = 20.0) -> LogLine:
        """Return the first log line, past or future, that fits; AssertionError with all output where none comes."""
        seen = 0
        with self._explained(f"no such log line within {timeout} s"):
            async with asyncio.timeout(timeout), self._grown:
                while True:
                    logs = self.logs
                    for line in logs[seen:]:
                        if predicate(line):
                            return line
                    seen = len(logs)
                    if self._has_ended:
                        raise AssertionError(self._story("the process ended without such a log line"))
                    await self._grown.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its children."""
        self._process.send_signal(number)

    def stop_reading(self) -> None:
        """Close our end of its standard output."""
        pipe = self._process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        pipe.close()
        pipe.get_extra_info("pipe").close()  # at once: the transport itself closes it in a later turn of the loop

    def pause_reading(self) -> None:
        """Read no more of its standard output for now: the pipe fills up."""
        self._process._transport.get_pipe_transport(1).pause_reading()  # type: ignore[attr-defined]

    def resume_reading(self) -> None:
        """Read on."""
        self._process._transport.get_pipe_transport(1).resume_reading()  # type: ignore[attr-defined]

    async def wait(self, timeout: float = 30.0) -> int:
        """Return the exit code (as `subprocess` has it: negative for a signal) once all output is here."""
        with self._explained(f"still running after {timeout} s"):
            async with asyncio.timeout(timeout), self._grown:
                await self._grown.wait_for(lambda: self._has_ended)
        return self._exit_code

    async def __aenter__(self) -> Self:
        self._home = tempfile.mkdtemp(prefix="mqrunner-home-")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # as the installed command: the current folder is not on the path by itself
            "-m",
            "runner",
            *self._arguments,
            cwd=self._cwd,
            env=self._environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._watching = asyncio.create_task(self._watch())
        assert self._process.stdin is not None
        self._process.stdin.write(self._stdin)
        self._process.stdin.close()
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        print(self._story("the test goes on" if error is None else f"the test ends here with {type(error).__name__}"))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._watching
        shutil.rmtree(self._home, ignore_errors=True)

    async def _watch(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        await asyncio.gather(
            self._collect(self._process.stdout, self._out), self._collect(self._process.stderr, self._err)
        )
        self._exit_code = await self._process.wait()
        async with self._grown:
            self._has_ended = True
            self._grown.notify_all()

    async def _collect(self, stream: asyncio.StreamReader, into: bytearray) -> None:
        while data := await stream.read(65_536):
            async with self._grown:
                into += data
                self._grown.notify_all()

    def _environment(self) -> dict[str, str]:
        basics = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "HOME": self._home}
        return basics | _passed_on() | _import_path() | self._env

    @contextlib.contextmanager
    def _explained(self, complaint: str) -> Any:
        try:
            yield
        except TimeoutError:
            raise AssertionError(self._story(complaint)) from None

    def _story(self, complaint: str) -> str:
        command = " ".join(self._arguments)
        return f"runner {command}: {complaint}\n--- stdout\n{self.stdout[-8000:]}\n--- stderr\n{self.stderr[-8000:]}"


def _passed_on() -> dict[str, str]:
    """Return what a whole run of tests can choose for every runner."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def _import_path() -> dict[str, str]:
    """Return where the package is, in case it is not installed for this interpreter."""
    try:
        importlib.metadata.distribution("mqrunner")
    except importlib.metadata.PackageNotFoundError:
        return {"PYTHONPATH": str(ROOT)}
    return {}
