"""RUNNER_LOOP chooses the event loop, and says what is wrong with a choice."""

from __future__ import annotations

import asyncio
import sys

import pytest

from runner.cli import event_loop


async def _kind() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


@pytest.mark.parametrize("name", [None, "", "asyncio"])
def test_it_is_asyncio_s_by_default(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.delenv(event_loop.LOOP_VARIABLE, raising=False)
    if name is not None:
        monkeypatch.setenv(event_loop.LOOP_VARIABLE, name)
    assert event_loop.run_in_loop(_kind()) == "asyncio"


def test_an_unknown_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(event_loop.LOOP_VARIABLE, "trio")
    with pytest.raises(event_loop.EventLoopUnavailable, match="trio") as refused:
        event_loop.run_in_loop(_kind())
    assert "asyncio or uvloop" in refused.value.hint


def test_uvloop_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(event_loop.LOOP_VARIABLE, "uvloop")
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(event_loop.EventLoopUnavailable) as missing:
        event_loop.run_in_loop(_kind())
    assert "mqrunner[uvloop]" in missing.value.hint
