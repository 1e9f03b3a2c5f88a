"""Single keys on the terminal while pipelines run: publish, list dead letters, reload, quit."""

from __future__ import annotations

import asyncio
import atexit
import codecs
import os
import signal
import termios
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from runner.cli.output import echo_err, echo_failure
from runner.cli.tables import format_columns
from runner.clock import utc_now
from runner.errors import RunnerError

if TYPE_CHECKING:
    from runner.operations.dead_letters import DeadLetterMessage
    from runner.reload.reloader import Reloader
    from runner.system import System

HELP = "p publish · d dead letters · r reload · q quit · ? help"
MAX_LISTED = 20
"""How many dead letters are listed."""

_STDIN = 0


class Keys:
    """Reads keys from standard input, if it is this process's terminal. A context manager: it restores the terminal."""

    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader
        self._before: list[Any] | None = None
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._prompt = ""
        self._line: asyncio.Future[str | None] | None = None
        """The answer to the question that is asked, which the terminal lets the user edit."""
        self._last = "", ""
        self._ahead = ""
        """What was typed before the next question of a command."""
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Keys:
        if os.isatty(_STDIN) and _is_in_foreground():
            self._before = termios.tcgetattr(_STDIN)
            atexit.register(self.close)
            signal.signal(signal.SIGCONT, lambda *_: self._set_mode())  # the shell may have changed it meanwhile
            self._set_mode()
            asyncio.get_running_loop().add_reader(_STDIN, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            asyncio.get_running_loop().remove_reader(_STDIN)
        self.close()

    def close(self) -> None:
        """Restore the terminal. Idempotent, and safe in a signal handler."""
        before, self._before = self._before, None
        if before is not None:
            with suppress(termios.error):
                termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)

    def note_system(self, system: System) -> None:
        """Leave standard input alone if a producer reads it."""
        handlers = (producer.handler for each in system.pipelines for producer in each.producers)
        if self._before is not None and any(handler is not None and handler.path == "-" for handler in handlers):
            self.__exit__()

    def echo_help(self) -> None:
        """List the keys, if they are read."""
        if self._before is not None:
            echo_err(f"{'keys':<10} {HELP}")

    def show(self, echo: Callable[[], None]) -> None:
        """Write something above the question that is asked."""
        if self._line is None:
            echo()
        else:
            echo_err("\r\x1b[K", is_colored=True, ends_line=False)
            echo()
            echo_err(self._prompt, ends_line=False)

    def _set_mode(self) -> None:
        """Let the terminal pass on each key, and only whole lines while a question is asked."""
        if self._before is not None and _is_in_foreground():
            mode = [*self._before]
            if self._line is None:
                mode[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, mode)

    def _read(self) -> None:
        data = b""
        with suppress(OSError):
            data = os.read(_STDIN, 4096)
        if not data and self._line is None:  # the terminal has gone
            self.__exit__()
        text = self._decode(data)
        if self._task is None and text and not (text[0] == "\x1b" and len(text) > 1):  # an arrow has no meaning here
            self._press(text[0])
            text = text[1:]
        if self._task is not None:
            self._ahead += text
            self._answer(is_given_up=not data or "\x1b" in text)

    def _answer(self, *, is_given_up: bool = False) -> None:
        """Answer the question with the next line that was typed, or with nothing."""
        if self._line is not None and not self._line.done() and (is_given_up or "\n" in self._ahead):
            line, _, self._ahead = self._ahead.partition("\n")
            self._line.set_result(None if is_given_up else line.strip())

    def _press(self, key: str) -> None:
        if key == "r":
            self._reloader.changes.force()
        elif key == "q":
            os.kill(os.getpid(), signal.SIGINT)
        elif key == "p":
            self._begin(self._publish())
        elif key == "d":
            self._begin(self._list_dead_letters())
        elif key in "?h":
            self.echo_help()
        elif key == "\n":
            echo_err("")  # some space between the lines

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except RunnerError as error:
                echo_failure(error)
            finally:
                self._task, self._ahead = None, ""  # the rest of what was pasted is no key

        self._task = asyncio.create_task(run())

    async def _ask(self, prompt: str, default: str) -> str | None:
        """Return what is typed, or the default; None if it is given up. Log lines wait meanwhile."""
        from runner import log

        with log.held():
            self._prompt = f"{prompt} [{default}]: " if default else f"{prompt}: "
            self._line = asyncio.get_running_loop().create_future()
            self._set_mode()
            echo_err(self._prompt, ends_line=False)
            try:
                self._answer()
                line = await self._line
            finally:
                self._line = None
                self._set_mode()
        if line is None:
            echo_err("")
        return None if line is None else line or default or None

    async def _publish(self) -> None:
        from runner import app
        from runner.system import select_destination

        system = self._reloader.system
        if system is None:
            echo_err("nothing runs yet")
            return
        names = sorted({name for pipeline in system.pipelines for name in pipeline.destinations})
        name, payload = self._last if self._last[0] in names else (names[0] if len(names) == 1 else "", "")
        echo_err(f"  {'  '.join(names)}")
        name = await self._ask("publish to", name) or ""
        text = await self._ask("payload", payload if name == self._last[0] else "") if name else None
        if text is None:
            return
        body = _body(text)
        system = select_destination(self._reloader.system or system, name)
        ids = await app.publish(system, name, [body], memory=self._reloader.memory)
        self._last = name, text
        echo_err(f"published {ids[0]}")

    async def _list_dead_letters(self) -> None:
        from runner.app import make_transport
        from runner.operations.dead_letter_ops import DeadLetterOps
        from runner.operations.dead_letters import DeadLetterFilter, select_dead_letter_queues
        from runner.page.broker_view import connect
        from runner.units import pluralize

        system = self._reloader.system
        if system is None:
            return
        letters: list[DeadLetterMessage] = []
        transport = make_transport(system, lambda _: None, memory=self._reloader.memory)
        session = await connect(system.pipelines, system.name, transport)
        try:
            if system.broker.is_memory:
                await transport.connect()
            ops = DeadLetterOps(session.access, DeadLetterFilter(), MAX_LISTED, utc_now, asyncio.Event())
            selected = select_dead_letter_queues(system.pipelines, None)
            summary = await ops.find(selected, letters.append)
        finally:
            await session.access.close()
            await transport.close()
        for line in format_columns([_dead_row(letter) for letter in letters], width=get_terminal_size().columns - 1):
            echo_err(line)
        echo_err(pluralize(summary.total, "dead letter"))


def _is_in_foreground() -> bool:
    """Return whether this process may change the terminal; in the background, the attempt would stop it."""
    try:
        return os.tcgetpgrp(_STDIN) == os.getpgrp()
    except OSError:  # not the terminal that controls this process
        return True


def _dead_row(letter: DeadLetterMessage) -> tuple[str, ...]:
    """Return the age, the queue, the id and the error; the id is as short as in log lines."""
    from runner.cli.dead_output import HEADINGS, table_row

    cells = dict(zip(HEADINGS, table_row(letter, utc_now()), strict=True))
    return cells["AGE"], letter.queue, cells["ID"][:8], cells["ERROR"] or cells["REASON"]


def _body(text: str) -> bytes:
    """Return the bytes of a payload as `runner publish` takes it. Raises RunnerError."""
    try:
        return Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
    except OSError as error:
        raise RunnerError(f"cannot read {text[1:]}: {error.strerror}") from None
