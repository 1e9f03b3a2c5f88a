"""What is remembered of producers: pure, so that any order of starts, stops and crashes can be drawn."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from runner.pipeline.model import Producer
from runner.runtime.producer_state import ProducerState
from runner.transports.leadership import choose_start

IMPORT = Producer("import", None, ())
SEED = Producer("seed", None, (), once="true")
SEED_2 = Producer("seed", None, (), once="v2")


def test_an_end_counts_in_its_own_start_only() -> None:
    memory = ProducerState({}, "a")
    assert not memory.has_ended(IMPORT)
    memory.note_end(IMPORT)
    assert memory.has_ended(IMPORT)
    assert ProducerState(memory.state, "a").has_ended(IMPORT)
    assert not ProducerState(memory.state, "b").has_ended(IMPORT)


def test_once_counts_in_all_starts_until_its_value_changes() -> None:
    memory = ProducerState({}, "a")
    memory.note_end(SEED)
    for start in ("a", "b"):
        assert ProducerState(memory.state, start).has_ended(SEED)
        assert not ProducerState(memory.state, start).has_ended(SEED_2)
    memory.note_end(SEED_2)
    assert ProducerState(memory.state, "c").has_ended(SEED_2)


def test_once_that_is_written_later_runs_once_more_and_then_never() -> None:
    memory = ProducerState({}, "a")
    memory.note_end(Producer("seed", None, ()))
    assert not ProducerState(memory.state, "a").has_ended(SEED)


def test_a_run_that_was_begun_keeps_its_id_over_starts() -> None:
    memory = ProducerState({}, "a")
    assert memory.run(IMPORT, lambda: "1") == ("1", True)
    later = ProducerState(memory.state, "b")
    assert later.run(IMPORT, lambda: "2") == ("1", False)
    later.note_end(IMPORT)
    assert ProducerState(later.state, "c").run(IMPORT, lambda: "3") == ("3", True)


def test_ticks() -> None:
    memory, due = ProducerState({}, "a"), datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert memory.last_tick("beat") is None
    memory.note_tick("beat", due)
    assert ProducerState(memory.state, "b").last_tick("beat") == due


def test_garbage_counts_as_nothing() -> None:
    """Also what an older release has written: the times of ends."""
    wrong: Any
    for wrong in (None, 1, [], "text", {"import": 1}, {"import": None}, {"import": "2026-03-01T12:00:00+00:00"}):
        memory = ProducerState(dict.fromkeys(("ticks", "done", "once"), wrong), "a")
        assert not memory.has_ended(IMPORT)
        assert not memory.has_ended(SEED)
        assert memory.last_tick("beat") is None
    assert ProducerState({"ticks": {"beat": "yesterday"}}, "a").last_tick("beat") is None


class Processes(RuleBasedStateMachine):
    """Processes that start, join, lead, produce, save and crash, in any order; one model of what has to come of it."""

    processes = Bundle("processes")

    def __init__(self) -> None:
        super().__init__()
        self.saved: str = "{}"
        self.token_start = ""
        self.alive: list[int] = []
        self.joined: set[int] = set()
        self.leader: int | None = None
        self.memory: ProducerState | None = None
        self.ran: dict[str, list[str]] = {}
        self.ended_unsaved: dict[str, str] = {}
        self.life = 0
        self.number = 0
        self.completed: list[tuple[int, str]] = []
        self.ever: list[str] = []

    @rule(target=processes, data=st.data())
    def start(self, data: st.DataObject) -> int:
        """A process starts: the first of a new life if no other is alive."""
        self.number += 1
        if not self.alive:
            self.life += 1
        self.alive.append(self.number)
        self.elect(data)
        return self.number

    @rule(process=consumes(processes), data=st.data())
    def end(self, process: int, data: st.DataObject) -> None:
        """It stops, or is killed: what it has not saved is forgotten."""
        self.alive.remove(process)
        if self.leader == process:
            self.lose(data)

    def lose(self, data: st.DataObject) -> None:
        self.leader, self.memory = None, None
        self.elect(data)

    def elect(self, data: st.DataObject) -> None:
        """One of the living leads, where there is one, and all the others hear of it."""
        if self.leader is None and self.alive:
            self.leader = data.draw(st.sampled_from(self.alive))
            has_joined = self.leader in self.joined
            self.token_start = choose_start(self.token_start, f"start {self.leader}", has_joined=has_joined)
            self.memory = ProducerState(json.loads(self.saved), self.token_start)
        self.joined |= set(self.alive)

    @precondition(lambda self: self.memory is not None)
    @rule(producer=st.sampled_from([IMPORT, SEED]), crash=st.sampled_from(["", "begin", "end"]), data=st.data())
    def produce(self, producer: Producer, crash: str, data: st.DataObject) -> None:
        """The leader runs a producer that has not ended, and may lose its leadership before either save."""
        memory: Any = self.memory
        if memory.has_ended(producer):
            return
        run, _ = memory.run(producer, lambda: f"run {len(self.ran.get(producer.name, []))}")
        if crash == "begin":
            self.lose(data)
            return
        self.saved = json.dumps(memory.state)
        unsaved = self.ended_unsaved.get(producer.name)
        assert unsaved in (None, run), "what was produced and not noted has the same ids when it is produced again"
        self.ran.setdefault(producer.name, []).append(run)
        if crash == "end":
            self.ended_unsaved[producer.name] = run
            self.lose(data)
            return
        memory.note_end(producer)
        self.saved = json.dumps(memory.state)
        self.ended_unsaved.pop(producer.name, None)
        self.completed.append((self.life, producer.name))

    @invariant()
    def each_life_has_one_end(self) -> None:
        """A finite producer ends at most once in a life of the pipeline, one with `once` at most once ever."""
        ends = [life for life, name in self.completed if name == "import"]
        assert len(ends) == len(set(ends))
        assert len([name for _, name in self.completed if name == "seed"]) <= 1

    @invariant()
    def a_new_life_runs_it_again(self) -> None:
        """Whoever leads finds work exactly where nothing has ended in this life."""
        if self.memory is not None:
            assert self.memory.has_ended(IMPORT) == ((self.life, "import") in self.completed)


TestProcesses = Processes.TestCase
