"""Warnings look at all pipelines that are read together, and at each alone where it is read alone."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from runner.errors import PipelineInvalid
from runner.system import check, load

HANDLER = "json:dumps"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**texts: str) -> None:
    for name, text in texts.items():
        Path(f"{name}.yaml").write_text(f"version: 1\nname: {name}\n{text}".replace("H,", f"handler: '{HANDLER}',"))


def warned(*names: str, broker: str | None = None) -> list[tuple[str, str]]:
    """Return the warnings, as (code, file); the same without imports."""
    paths = [Path(f"{name}.yaml") for name in names]
    try:
        problems = load(paths, {}, broker=broker, is_one_process=False).warnings
    except PipelineInvalid as invalid:
        problems = tuple(invalid.problems)
    if broker is None:
        assert check(paths, {})[0] == list(problems)
    return [(problem.code, problem.file.removesuffix(".yaml")) for problem in problems]


PAIRS = [
    (
        "unheard-event",
        "queues: {q: }\nevents: {e: }\nsubscribers: {s: {H, from: q, to: e}}\n",
        "events: {e: }\nsubscribers: {s: {H, from: e}}\n",
    ),
    (
        "unheard-event",
        "queues: {q: }\nevents: {e.x: }\nsubscribers: {s: {H, from: q, to: e.x}}\n",
        "queues: {r: {bind: [{exchange: events, key: 'e.*'}]}}\nsubscribers: {s: {H, from: r}}\n",
    ),
    (
        "unpublished-event",
        "queues: {q: , r: }\nevents: {e: }\nsubscribers: {a: {H, from: q, to: r}, b: {H, from: e}, c: {H, from: r}}\n",
        "queues: {z: }\nevents: {e: }\nsubscribers: {s: {H, from: z, to: e}}\n",
    ),
    (
        "unread-queue",
        "queues: {q: , r: }\nsubscribers: {s: {H, from: q}}\n",
        "queues: {r: }\nsubscribers: {s: {H, from: r}}\n",
    ),
    (
        "unmatched-pattern",
        "queues: {q: }\nsubscribers: {s: {H, from: 'e.*'}, t: {H, from: q}}\n",
        "queues: {z: }\nevents: {e.x: }\nsubscribers: {s: {H, from: z, to: e.x}}\n",
    ),
    (
        "undeclared-exchange",
        "exchanges: {x: topic}\nevents: {e: {exchange: y}}\nsubscribers: {s: {H, from: e}}\n",
        "exchanges: {y: topic}\nqueues: {q: {bind: [{exchange: y, key: k}]}}\nsubscribers: {s: {H, from: q}}\n",
    ),
]


@pytest.mark.parametrize(("code", "first", "second"), PAIRS)
def test_what_another_pipeline_has_is_not_missing(code: str, first: str, second: str) -> None:
    """In each order; alone it is missing."""
    write(a=first, b=second)
    assert (code, "a") in warned("a")
    for names in permutations("ab"):
        assert (code, "a") not in warned(*names)


@pytest.mark.parametrize(("code", "first", "second"), PAIRS)
def test_a_pipeline_on_another_broker_has_nothing_to_do_with_it(code: str, first: str, second: str) -> None:
    """Unless `--broker` puts them on one."""
    write(a=first, b=f"{second}broker: ${{URL:-amqp://u:p@elsewhere}}\n")
    assert (code, "a") in warned("a", "b")
    assert (code, "a") not in warned("a", "b", broker="amqp://u:p@localhost")


def test_what_no_pipeline_hears_is_warned_of_once(folder: Path) -> None:
    """At its place in the file that both include; an event of another exchange is another event."""
    Path("shared").mkdir()
    Path("shared/events.yaml").write_text("events: {e: }\n")
    text = "include: shared/events.yaml\nqueues: {QUEUE: }\nsubscribers: {s: {H, from: QUEUE, to: e}}\n"
    write(a=text.replace("QUEUE", "qa"), b=text.replace("QUEUE", "qb"))
    assert warned("a", "b") == [("unheard-event", "shared/events")]
    write(c="events: {e: {exchange: other}}\nsubscribers: {s: {H, from: e}}\n")
    assert warned("a", "b", "c") == [("unheard-event", "shared/events")]


def test_a_circle_through_several_pipelines_is_warned_of_once() -> None:
    """By queues and events, in the first of its files."""
    write(
        a="queues: {q: }\nevents: {e: }\nsubscribers: {one: {H, from: q, to: e}}\n",
        b="queues: {q: }\nevents: {e: }\nsubscribers: {two: {H, from: e, to: q}}\n",
    )
    assert warned("a", "b") == [("cycle", "a")]
    (problem,) = load([Path("b.yaml"), Path("a.yaml")], {}).warnings
    assert (problem.file, problem.message) == ("b.yaml", "results loop back: two → a.one → two")


def test_a_file_that_cannot_be_read_makes_nothing_missing() -> None:
    """Its own error is the only thing said: what it has in it is not known."""
    write(a=PAIRS[0][1], b="events: {e: [}\n")
    assert {file for _, file in warned("a", "b")} == {"b"}
    write(b=PAIRS[0][2] + "nonsense: 1\n")
    assert warned("a", "b") == [("unknown-key", "b")]


def test_a_queue_that_nobody_reads_may_be_another_one_misspelt() -> None:
    write(a="queues: {order_queue: , orders_queue: , parcels: }\nsubscribers: {s: {H, from: order_queue}}\n")
    found = {problem.path: problem.help for problem in load([Path("a.yaml")], {}, is_one_process=False).warnings}
    rest = "dd a subscriber, or write `unread: ignore` under it if another program reads it"
    assert found == {
        "queues.orders_queue": f'did you mean "order_queue"? If not, a{rest}',
        "queues.parcels": f"a{rest}",
    }
