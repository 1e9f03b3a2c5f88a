"""Single keys on the terminal while pipelines run: publish, list dead letters, reload, quit."""

from __future__ import annotations

import asyncio
import atexit
import codecs
import os
import signal
import termios
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from runner.cli.output import echo_err, echo_failure
from runner.cli.tables import format_columns
from runner.errors import RunnerError
from runner.text_width import display_width

if TYPE_CHECKING:
    from runner.app import System
    from runner.operations.dead_letters import DeadLetterMessage
    from runner.reload.reloader import Reloader

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
        self._line: _Line | None = None
        self._last = "", ""
        self._ahead = ""
        """What was typed while a command is at work, for its next question."""
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
        """Write something above the line that is being typed."""
        if self._line is not None:
            self._line.clear()
        echo()
        if self._line is not None:
            self._line.draw()

    def _set_mode(self) -> None:
        if self._before is not None and _is_in_foreground():
            mode = [*self._before]
            mode[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, mode)

    def _read(self) -> None:
        data = b""
        with suppress(OSError):
            data = os.read(_STDIN, 4096)
        if not data:  # the terminal has gone
            self.__exit__()
        text = self._decode(data)
        if not text or (text[0] == "\x1b" and len(text) > 1):
            return  # an arrow, or another key without a meaning here
        if self._task is None:
            self._press(text[0])
            text = text[1:]
        if self._task is not None:
            self._ahead += text
            self._feed()

    def _feed(self) -> None:
        while self._line is not None and self._ahead and not self._line.done.done():
            character, self._ahead = self._ahead[0], self._ahead[1:]
            self._line.feed(character)

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

    async def _ask(self, prompt: str, default: str, choices: Sequence[str] = ()) -> str | None:
        """Return what is typed, or the default; None if it is given up. Log lines wait meanwhile."""
        from runner import log

        with log.held():
            self._line = _Line(prompt, default, choices)
            self._feed()
            try:
                return await self._line.done
            finally:
                self._line = None

    async def _publish(self) -> None:
        from runner import app

        system = self._reloader.system
        if system is None:
            echo_err("nothing runs yet")
            return
        names = sorted({name for pipeline in system.pipelines for name in pipeline.destinations})
        name, payload = self._last if self._last[0] in names else (names[0] if len(names) == 1 else "", "")
        name = await self._ask("publish to", name, names) or ""
        text = await self._ask("payload", payload if name == self._last[0] else "") if name else None
        if text is None:
            return
        body = _body(text)
        system = app.select_destination(self._reloader.system or system, name)
        ids = await app.publish(system, name, [body], memory=self._reloader.memory)
        self._last = name, text
        echo_err(f"published {ids[0]}")

    async def _list_dead_letters(self) -> None:
        from runner.app import make_transport
        from runner.cli.dead_options import utc_now
        from runner.operations.dead_letter_ops import DeadLetterOps
        from runner.operations.dead_letters import DeadLetterFilter, select_dead_letter_queues
        from runner.page.sessions import connect
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
    from runner.cli.dead_options import utc_now
    from runner.cli.dead_output import HEADINGS, table_row

    cells = dict(zip(HEADINGS, table_row(letter, utc_now()), strict=True))
    return cells["AGE"], letter.queue, cells["ID"][:8], cells["ERROR"] or cells["REASON"]


def _body(text: str) -> bytes:
    """Return the bytes of a payload as `runner publish` takes it. Raises RunnerError."""
    try:
        return Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
    except OSError as error:
        raise RunnerError(f"cannot read {text[1:]}: {error.strerror}") from None


class _Line:
    """One line that is typed: letters, backspace, Ctrl-U, Tab to complete, Enter, and Escape to give up."""

    def __init__(self, prompt: str, default: str, choices: Sequence[str]) -> None:
        self._prompt = f"{prompt} [{default}]: " if default else f"{prompt}: "
        self._default = default
        self._choices = choices
        self._text = ""
        self.done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.draw()

    def feed(self, character: str) -> None:
        """Take a character."""
        if self.done.done():
            return
        if character == "\n":
            self._end(self._text.strip() or self._default or None)
        elif character in "\x1b\x04":
            self._end(None)
        elif character in "\x7f\b":
            self._text = self._text[:-1]
        elif character == "\x15":
            self._text = ""
        elif character == "\t":
            self._complete()
        elif character.isprintable():
            self._text += character
        self.draw()

    def draw(self) -> None:
        """Write the line over what was there; of a long one, its end."""
        if self.done.done():
            return
        room = max(20, get_terminal_size().columns - 1)
        prompt, text = self._prompt, self._text
        if display_width(prompt) > room // 2:
            prompt = f"{prompt[: room // 2 - 4]}…]: "
        while display_width(prompt + text) > room:
            text = text[1:]
        echo_err(f"\r\x1b[K{prompt}{text}", is_colored=True, ends_line=False)

    def clear(self) -> None:
        """Remove the line from the screen."""
        echo_err("\r\x1b[K", is_colored=True, ends_line=False)

    def _end(self, text: str | None) -> None:
        self.draw()
        echo_err("")
        self.done.set_result(text)

    def _complete(self) -> None:
        """Complete as far as it is certain, and show the names that are possible."""
        found = [choice for choice in self._choices if choice.startswith(self._text)]
        if not found:
            return
        common = os.path.commonprefix(found)  # noqa: RUF071  # of texts, not of paths
        if common == self._text and len(found) > 1:
            self.clear()
            echo_err("  ".join(found))
        self._text = common
