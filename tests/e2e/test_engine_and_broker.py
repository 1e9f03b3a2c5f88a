"""What a test sees is what happens: random pipelines do the same under `runner.testing` and under `up` on RabbitMQ.

The ledgers of both have every call, with its attempt, and how it ended: handled, retried after a delay, given up for a
reason, and how much was published.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.testing.engine import Engine
from tests.process import ROOT
from tests.project import Place, Project

Ledger = dict[str, Counter[Any]]

COMMAND = (sys.executable, "-P", "-m", "mqrunner")

HANDLERS = """
import json
from pathlib import Path
from runner import Message, Reject, RetryLater
from ledger_of_handlers import note

FATES = json.loads(Path(__file__).with_name("fates.json").read_text())

class Away(Exception): ...

def send(): return [{"n": n} for n in range(len(FATES["s0"]))]

def _decide(name, order, message):
    note(json.dumps([name, order["n"]]), message.attempt)
    kind, count = FATES[name][order["n"]]
    if kind == "reject":
        raise Reject("no")
    if message.attempt <= count:
        raise RetryLater("150ms") if kind == "later" else Away("no answer")
    return order
"""

FATES = st.tuples(st.sampled_from(["fail", "fail", "later", "reject"]), st.integers(0, 3))
RETRIES = st.fixed_dictionaries(
    {
        "attempts": st.integers(1, 3),
        "delay": st.sampled_from(["100ms", "200ms"]),
        "backoff": st.sampled_from(["fixed", "linear", "exponential"]),
    }
)


@st.composite
def flows(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a pipeline without circles, and the fate of each message at each of its subscribers."""
    names = [f"UNIQUE.d{number}" for number in range(draw(st.integers(1, 3)))]
    events = {name for name in names if draw(st.booleans())}
    sources = [name for name in names for _ in range(draw(st.integers(1, 2)) if name in events else 1)]
    messages = draw(st.integers(1, 4))
    subscribers, fates = {}, {}
    for number, source in enumerate(sources):
        name, later = f"s{number}", names[names.index(source) + 1 :]
        to = draw(st.lists(st.sampled_from(later), unique=True)) if later else []
        subscribers[name] = {
            "from": source,
            "handler": f"work:{name}",
            "retry": draw(RETRIES),
            "concurrency": draw(st.integers(1, 3)),
            **({"to": to} if to else {}),
        }
        fates[name] = draw(st.lists(FATES, min_size=messages, max_size=messages))
    pipeline = {
        "version": 1,
        "queues": {name: {"type": "classic"} for name in names if name not in events},
        "events": dict.fromkeys(events),
        "producers": {"send": {"handler": "work:send", "to": names[0]}},
        "subscribers": subscribers,
    }
    return {"pipeline": pipeline, "fates": fates}


def write(flow: dict[str, Any], project: Project) -> None:
    """Write the pipeline, its handlers and their fates."""
    project.pipeline(yaml.safe_dump(flow["pipeline"], sort_keys=False))
    names = flow["pipeline"]["subscribers"]
    one = "\n{} handle_{}(order: dict, message: Message): return _decide('{}', order, message)\n{} = handle_{}\n"
    kinds = itertools.cycle(("def", "async def"))
    text = HANDLERS + "".join(one.format(next(kinds), name, name, name, name) for name in names)
    (project.folder / "work.py").write_text(text)
    (project.folder / "fates.json").write_text(json.dumps(flow["fates"]))


def on_the_broker(project: Project) -> Ledger:
    """Run it in real time, until idle."""
    done = subprocess.run(
        [*COMMAND, "up", project.file, "--until-idle", "--log-format", "json", *project.place.arguments],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LEDGER": str(project.ledger.path)},
        capture_output=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    of = {event: [line for line in lines if line["event"] == f"message.{event}"] for event in ("handled", "retry")}
    dead = [line for line in lines if line["event"] == "message.dead_lettered"]
    (stopped,) = [line for line in lines if line["event"] == "pipeline.stopped"]  # it counts what producers publish
    results = [line["subscriber"] for line in of["handled"] for _ in range(line.get("published", 0))]
    return {
        "calls": Counter((entry.payload, entry.attempt) for entry in project.ledger.entries()),
        "handled": Counter(line["subscriber"] for line in of["handled"]),
        "retried": Counter((line["subscriber"], line["attempt"], line["delay_ms"]) for line in of["retry"]),
        "dead": Counter((line["subscriber"], line["reason"], line["error_type"]) for line in dead),
        "published": Counter(["send"] * stopped["published"] + results),
    }


def under_test(project: Project) -> Ledger:
    """Run it as a test does, in virtual time."""
    engine = Engine([project.folder / project.file])
    engine.start()
    try:
        engine.wait(engine.idling())
        records = engine.records
    finally:
        engine.close()
    of = {kind: [each for each in records if each.kind == kind] for kind in ("handled", "retried", "dead", "published")}
    return {
        "calls": Counter((entry.payload, entry.attempt) for entry in project.ledger.entries()),
        "handled": Counter(each.subscriber for each in of["handled"]),
        "retried": Counter((each.subscriber, each.attempt, round((each.after or 0) * 1000)) for each in of["retried"]),
        "dead": Counter((each.subscriber, each.reason, each.error_type) for each in of["dead"]),
        "published": Counter(each.subscriber or each.producer for each in of["published"]),
    }


NUMBERS = itertools.count()


def compare(flow: dict[str, Any], folder: Path, unique: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    own = folder / str(next(NUMBERS))
    own.mkdir()
    project = Project(own, f"{unique}.{own.name}", place)
    write(flow, project)
    project.ledger.path = own / "real"
    real = on_the_broker(project)
    project.ledger.path = own / "tested"
    monkeypatch.setenv("LEDGER", str(project.ledger.path))
    assert under_test(project) == real
    assert sum(real["calls"].values()) == len(project.ledger.entries())


FLOW = {
    "pipeline": {
        "version": 1,
        "queues": {"UNIQUE.orders": {"type": "classic"}},
        "events": {"UNIQUE.paid": None},
        "producers": {"send": {"handler": "work:send", "to": "UNIQUE.orders"}},
        "subscribers": {
            "s0": {
                "from": "UNIQUE.orders",
                "handler": "work:s0",
                "to": "UNIQUE.paid",
                "retry": {"attempts": 3, "delay": "100ms"},
            },
            "s1": {"from": "UNIQUE.paid", "handler": "work:s1", "retry": {"attempts": 2, "delay": "100ms"}},
            "s2": {"from": "UNIQUE.paid", "handler": "work:s2", "retry": "none"},
        },
    },
    "fates": {
        "s0": [("fail", 0), ("fail", 2), ("fail", 3), ("later", 1), ("reject", 0)],
        "s1": [("fail", 1), ("fail", 2), ("reject", 0), ("later", 2), ("fail", 0)],
        "s2": [("fail", 1), ("later", 1), ("fail", 0), ("fail", 0), ("fail", 0)],
    },
}


def test_a_test_does_what_the_broker_does(
    tmp_path: Path, unique: str, on_rabbitmq: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way in which a message can end."""
    compare(FLOW, tmp_path, unique, on_rabbitmq, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(flow=flows())
def test_random_pipelines_do_the_same(
    flow: dict[str, Any], tmp_path: Path, unique: str, on_rabbitmq: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty each time."""
    compare(flow, tmp_path, unique, on_rabbitmq, monkeypatch)
