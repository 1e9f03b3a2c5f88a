"""Keys of `runner dev` on a real terminal, which is afterwards as it was before."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.process import ROOT
from tests.project import Project

PIPELINE = """
    version: 1
    events: {order.paid: {unheard: ignore}}
    queues: {UNIQUE.orders: {}}
    subscribers:
      audit: {from: order.paid, handler: work:audit, retry: none}
      handle: {from: UNIQUE.orders, handler: work:handle}
"""
HANDLERS = """
    def audit(payload) -> None: raise ValueError(f"no price in {payload}")
    def handle(payload) -> None: note(payload)
"""


class Terminal:
    """A terminal of 80 columns with `runner dev` on it."""

    def __init__(self, project: Project) -> None:
        self.ours, self._theirs = pty.openpty()
        self.before = termios.tcgetattr(self._theirs)
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner", "dev", str(project.file), "--http", "127.0.0.1:0"],
            cwd=project.folder,
            env={
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "TERM": "xterm",
                "COLUMNS": "80",
                "PYTHONPATH": str(ROOT),
                "LEDGER": str(project.ledger.path),
            },
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
        )
        os.set_blocking(self.ours, False)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until the condition holds for what is shown, or what is there."""
        deadline = time.monotonic() + 20
        while True:
            with suppress(BlockingIOError, OSError):
                self.shown += os.read(self.ours, 65_536).decode(errors="replace")
            if condition():
                return
            assert time.monotonic() < deadline, f"not within 20 s: {what}\n{self.shown}"
            time.sleep(0.02)

    def wait_for(self, *texts: str) -> None:
        """Wait for texts, in any order, and forget what was shown up to them."""
        self.until(lambda: all(text in self.shown for text in texts), str(texts))
        ends = [self.shown.index(text) + len(text) for text in texts]
        self.shown = self.shown[max(ends) :]

    def wait(self) -> int:
        """Wait for the end, and check that the terminal is as it was."""
        self.until(lambda: self.process.poll() is not None, "the end")
        assert termios.tcgetattr(self._theirs) == self.before
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self._theirs)


@pytest.fixture
def terminal(memory_project: Project) -> Iterator[Terminal]:
    memory_project.write(PIPELINE, HANDLERS)
    terminal = Terminal(memory_project)
    terminal.wait_for("? help")
    yield terminal
    terminal.close()


def test_keys(terminal: Terminal, memory_project: Project) -> None:
    """Publish with a correction, repeat it, list dead letters, reload, quit."""
    terminal.type("p")
    terminal.wait_for("publish to: ")
    terminal.type("order.paidx\x7f\n")
    terminal.wait_for("payload: ")
    terminal.type('{"order": "ü"}\n')
    terminal.wait_for("published ", "ValueError: no price in {'order': 'ü'}")
    terminal.type("p\n\n")  # the same again
    terminal.wait_for('payload [{"order": "ü"}]: ')
    terminal.wait_for("published ", "ValueError: no price in {'order': 'ü'}")
    terminal.type("d")
    terminal.wait_for("2 dead letters")
    terminal.type(f"p{memory_project.name('orders')}\n1\n")
    terminal.wait_for("published ")
    terminal.until(lambda: memory_project.ledger.payloads() == ["1"], "the message is handled")
    terminal.type("p")
    terminal.wait_for("publish to [")
    terminal.type("\x04")  # given up
    terminal.wait_for("\r\n")
    terminal.type("r")
    terminal.wait_for("by hand")
    terminal.type("pnowhere\n1\n")
    terminal.wait_for("no queue or event of")
    terminal.type("p")
    terminal.wait_for("publish to [")
    memory_project.handlers("def audit(p) -> None: pass\ndef handle(p) -> None: pass")
    terminal.wait_for("changed audit, handle", "publish to [")  # a reload asks again
    terminal.type("\x04")
    terminal.wait_for("\r\n")
    terminal.type("?")
    terminal.wait_for("? help")
    terminal.type("q")
    assert terminal.wait() == 0, terminal.shown
    terminal.wait_for("stopped: 0 published · 1 handled · 0 retried · 2 dead-lettered")


@pytest.mark.parametrize("is_forced", [False, True])
def test_the_terminal_is_restored(terminal: Terminal, memory_project: Project, is_forced: bool) -> None:
    """By a signal in the middle of a line; also by a second one, which does not wait for the handler."""
    seconds = 30 if is_forced else 0
    code = f"import time\n\ndef audit(p) -> None: pass\n\ndef handle(p):\n    note(p)\n    time.sleep({seconds})\n"
    memory_project.handlers(code)
    terminal.wait_for("changed audit, handle")
    terminal.type(f"p{memory_project.name('orders')}\n1\n")
    terminal.until(lambda: memory_project.ledger.payloads() == ["1"], "a handler runs")
    terminal.wait_for("published ")
    assert termios.tcgetattr(terminal.ours) != terminal.before
    terminal.type("p")
    terminal.wait_for("publish to [")
    terminal.process.send_signal(signal.SIGTERM)
    terminal.wait_for("draining")
    if is_forced:
        terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == (130 if is_forced else 0)
