"""Whatever an application does with structlog, logging and sys.stdout: our lines stay ours."""

from __future__ import annotations

import io
import logging
import logging.config
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from runner import log
from tests.unit.captured_log import configured, parsed

pytestmark = pytest.mark.usefixtures("restored_logging")


def reconfigure_structlog() -> None:
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()], cache_logger_on_first_use=True)


def take_logging_over() -> None:
    logging.basicConfig(force=True, stream=io.StringIO(), level=logging.CRITICAL)


def configure_by_dict() -> None:
    root = {"handlers": [], "level": "CRITICAL"}
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True, "root": root})


def lead_stdout_elsewhere() -> None:
    sys.stdout = io.StringIO()


MISUSES: list[Callable[[], object]] = [
    reconfigure_structlog,
    structlog.reset_defaults,
    take_logging_over,
    configure_by_dict,
    lambda: logging.disable(logging.CRITICAL),
    lead_stdout_elsewhere,
    lambda: sys.stdout.close(),
    lambda: setattr(sys, "stdout", None),
]


@pytest.mark.parametrize("misuse", MISUSES)
def test_our_lines_stay_as_they_are(misuse: Callable[[], object]) -> None:
    """Also those of a logger that was made before: JSON, the place, and no password."""
    out = configured(capture_stdout=True)
    before, soon = log.get_logger(), log.get_message_logger({"pipeline": "p", "queue": "q"})
    misuse()
    with log.bound_context({"pipeline": "p", "queue": "q"}):
        for logger in (before, soon, log.get_logger()):
            logger.info("message.retry", error="at amqp://u:secret@h")
    log.flush()
    lines = parsed(out)
    assert len(lines) == 3
    for line in lines:
        assert (line["event"], line["level"], line["pipeline"], line["queue"]) == ("message.retry", "info", "p", "q")
        assert line["error"] == "at amqp://u:***@h"
        assert line["timestamp"]


def test_an_applications_structlog_is_left_alone() -> None:
    """Whether it was configured before us or after; and ours is offered where it was not."""
    configured()
    assert structlog.is_configured()
    reconfigure_structlog()
    theirs = structlog.get_config()["processors"]
    out = configured()
    assert structlog.get_config()["processors"] is theirs
    structlog.reset_defaults()
    out = configured()
    structlog.get_logger().info("theirs", a=1)
    assert [(line["event"], line["a"]) for line in parsed(out)] == [("theirs", 1)]


def test_a_logger_bound_at_import_writes_as_the_last_configuration_says() -> None:
    configured()
    bound = structlog.get_logger().bind(a=1)
    out = configured(worker=3)
    bound.info("theirs")
    assert [(line["worker"], line["a"]) for line in parsed(out)] == [(3, 1)]


def test_extra_fields_appear_and_are_never_taken_for_ours() -> None:
    """Of records, of structlog lines, and of structlog's context variables."""
    out = configured(worker=2)
    ours = {"pipeline": "p", "subscriber": "s", "queue": "q", "message_id": "m", "payload": "{}"}
    evil = {"level": "debug", "timestamp": "never", "queue": "x", "payload": "y", "worker": 9, 'a\n"b': "c\nd"}
    with log.bound_context(ours), structlog.contextvars.bound_contextvars(message_id="z", tenant="t"):
        logging.getLogger("shop").warning("hello", extra={**evil, "event": "forged", "logger": "forged"})
        structlog.get_logger().warning("hello", **evil)
    for line in parsed(out):
        assert line["event"] == "hello"
        assert line["level"] == "warning"
        assert line["timestamp"] != "never"
        assert {name: line[name] for name in ours} == ours
        assert line["worker"] == 2
        assert (line["extra_queue"], line["extra_payload"], line["extra_level"]) == ("x", "y", "debug")
        assert (line["extra_worker"], line["extra_message_id"], line["tenant"]) == (9, "z", "t")
        assert line['a\\n"b'] == "c\\nd"
    (record, _) = parsed(out)
    assert (record["logger"], record["extra_event"], record["extra_logger"]) == ("shop", "forged", "forged")


def test_a_record_that_cannot_be_written_as_it_is_loses_nothing_else() -> None:
    """Arguments that do not fit, levels of the application's own, a mapping instead of a text."""
    out = configured()
    logger = logging.getLogger("shop")
    logger.warning("%d pieces", "many")
    logger.log(25, {"event": "as structlog does", "a": 1})
    logging.addLevelName(26, "NO\nTICE")
    logger.log(26, "%s", "own level", stack_info=True)
    first, second, third = parsed(out)
    assert (first["event"], first["text"]) == ("log.failed", "'%d pieces' ('many',)")
    assert first["error"].startswith("the arguments do not fit the format: %d format")
    assert re.fullmatch(r".*test_log_foreign\.py:\d+", first["at"])
    assert (second["event"], second["a"]) == ("as structlog does", 1)
    assert (third["event"], third["level"]) == ("own level", "no\\ntice")
    assert "test_log_foreign" in third["stack"]


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_value_can_stop_a_line(format: Any) -> None:
    """Numbers that Python does not write, objects that raise, names that are no text."""

    class Broken(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError

    class Word(str):
        def isprintable(self) -> bool:
            raise RuntimeError

    out = io.StringIO()
    log.configure(format=format, stream=out)
    values = {
        "large": 10**5000,
        "broken": Broken(),
        "word": Word("w"),
        "bytes": b"x" * 10_000_000,
        "names": {1: {2: 3}},
    }
    structlog.get_logger().error({"an": "event"}, **values)
    text = out.getvalue()
    assert len(text.splitlines()) == 1
    assert "<test_no_value" in text
    assert "w" in text
    assert len(text) < 10_000
