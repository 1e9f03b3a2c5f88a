"""What of the loaded pipelines runs: `--only`, `--except` and `enabled: false`."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.cli.status import table
from runner.cli.up_run import echo_loaded
from runner.config.overlays import Setting
from runner.operations.export.alerts import alerts
from runner.operations.graph import render
from runner.operations.graph.model import build_graph
from runner.operations.status import unknown_status
from runner.system import System, UnknownName, load, select

SHOP = """
version: 1
queues: {q: , r: }
producers:
  make: {handler: "tests.unit.pipeline.sample_handlers:produce", to: q}
  tick: {handler: "tests.unit.pipeline.sample_handlers:produce", to: q, every: 5s, enabled: false}
subscribers:
  ship: {from: q, handler: "tests.unit.pipeline.sample_handlers:handle"}
  log: {from: r, handler: "tests.unit.pipeline.sample_handlers:handle", enabled: "${LOG:-false}"}
"""


@pytest.fixture
def shop(tmp_path: Path) -> System:
    return loaded(tmp_path)


def loaded(folder: Path, *overlays: Setting) -> System:
    path = folder / "shop.yaml"
    path.write_text(SHOP)
    return load([path], {}, overlays)


def running(system: System) -> list[str]:
    return [item.name for item in system.items()]


@pytest.mark.parametrize(
    ("only", "without", "names"),
    [
        ((), (), ["make", "ship"]),
        (("ship",), (), ["ship"]),
        ((), ("ship",), ["make"]),
        (("ship", "make"), ("make",), ["ship"]),
        ((), ("make", "tick"), ["ship"]),
    ],
)
def test_what_runs_is_named_or_not_left_out_and_always_enabled(
    shop: System, only: tuple[str, ...], without: tuple[str, ...], names: list[str]
) -> None:
    selected = select(shop, only, without)
    assert running(selected) == names
    assert selected.topology == shop.topology


@pytest.mark.parametrize(
    ("only", "without", "message", "hint"),
    [
        (("shp",), (), 'no producer or subscriber is called "shp"', 'did you mean "ship"?'),
        ((), ("shp",), 'no producer or subscriber is called "shp"', 'did you mean "ship"?'),
        (
            ("ship,other",),
            (),
            'no producer or subscriber is called "ship,other"',
            "write the option once for each name: --only ship --only other",
        ),
        (("ship",), ("ship",), "nothing is left to run", "leave out --except ship"),
        (("log",), (), '"log" is disabled in its pipeline', "remove `enabled: false`, or do not name it"),
    ],
)
def test_a_name_that_cannot_be_meant_is_refused(
    shop: System, only: tuple[str, ...], without: tuple[str, ...], message: str, hint: str
) -> None:
    with pytest.raises(UnknownName, match=message) as error:
        select(shop, only, without)
    assert error.value.hint == hint


def test_a_setting_enables_what_the_file_disables(tmp_path: Path) -> None:
    system = loaded(tmp_path, Setting("subscribers.log.enabled=true"), Setting("producers.tick.enabled=true"))
    assert running(select(system)) == ["make", "tick", "ship", "log"]


def test_the_checklist_the_graph_and_the_status_name_what_is_disabled(
    shop: System, capsys: pytest.CaptureFixture[str]
) -> None:
    echo_loaded(select(shop))
    assert "disabled   tick, log\n" in capsys.readouterr().err
    assert "→ log      subscriber · disabled · ↻" in render(build_graph(shop.specs), "text")
    status = unknown_status(shop.pipelines[0])
    assert status.as_json()["disabled"] == ["tick", "log"]
    assert "\n  disabled: tick, log\n" in table([status]) + "\n"


def test_nothing_alerts_because_a_disabled_subscriber_or_producer_does_not_run(shop: System) -> None:
    from datetime import UTC, datetime

    rules = alerts(shop.pipelines, datetime(2026, 1, 1, tzinfo=UTC))
    assert "subscriber: ship" in rules
    assert "log" not in rules
    assert "RunnerProducerMissed" not in rules
