"""The arithmetic of the benchmarks: what several ledgers add up to, how rows compare, and what the picture shows."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from benchmarks import noise, profiling
from benchmarks.entries.job import Job, body
from benchmarks.entries.librabbitmq import LIBRABBITMQ
from benchmarks.entries.plain_pika import PLAIN_PIKA
from benchmarks.entries.raw_socket import CHUNK, published
from benchmarks.harness import ROOT, BenchmarkError, Measurements, Spread, disturbed, measure_in_turns
from benchmarks.ledger import Ledger, SharedLedger, Stopwatch
from benchmarks.noise import Noise
from benchmarks.plot import draw
from benchmarks.process_group import Account, ProcessGroup, read_accounts
from benchmarks.throughput import Measured, compare, not_installed


def test_a_ledger_writes_when_all_have_come(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 3)
    for number in (2, 0):
        ledger.note(number)
    assert read_accounts(tmp_path).count == 0
    ledger.note(1)
    account = read_accounts(tmp_path)
    account.check("test", 3)
    assert account.processes == 1
    assert account.ended >= account.began > 0


def test_a_message_handled_twice_is_an_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 2)
    for number in (0, 1, 1):
        ledger.note(number)
    with pytest.raises(BenchmarkError, match="3 messages instead of 2"):
        read_accounts(tmp_path).check("test", 2)


def test_the_same_message_instead_of_another_is_an_error() -> None:
    account = Account(count=3, sum=2, began=1.0, ended=2.0, cpu_s=0.1, processes=1)
    with pytest.raises(BenchmarkError, match="not each once"):
        account.check("test", 3)


def test_shared_ledgers_need_not_know_the_end(tmp_path: Path) -> None:
    ledger = SharedLedger(tmp_path, 1000)
    ledger.note(0)
    deadline = time.monotonic() + 5
    while read_accounts(tmp_path).count < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert read_accounts(tmp_path).count == 1


def test_a_stopwatch_keeps_latencies(tmp_path: Path) -> None:
    stopwatch = Stopwatch(tmp_path, 1)
    stopwatch.clock(0, time.monotonic() - 1.0)
    assert read_accounts(tmp_path).latencies == pytest.approx([1.0], abs=0.5)


def test_accounts_of_several_processes_add_up() -> None:
    one = {"count": 2, "sum": 1, "began": 5.0, "ended": 7.0, "cpu_s": 1.0}
    other = {"count": 1, "sum": 2, "began": 4.0, "ended": 6.0, "cpu_s": 0.5}
    assert Account.of([one, other]) == Account(3, 3, 4.0, 7.0, 1.5, 2)


def test_a_crew_that_ends_too_soon_says_what_it_said(tmp_path: Path) -> None:
    failing = ProcessGroup("nobody", [["sh", "-c", "echo no such thing >&2; exit 3"]], tmp_path, {})
    with pytest.raises(BenchmarkError, match=r"nobody: ended with \[3\][\s\S]*no such thing"), failing as group:
        group.wait(1, 10.0)


def test_a_crew_is_ended_by_sigterm(tmp_path: Path) -> None:
    with ProcessGroup("sleeper", [["sleep", "60"]], tmp_path, {}) as group:
        assert group.end().count == 0


def test_what_fails_is_left_out_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise BenchmarkError("lost two messages")

    tried = measure_in_turns(3, {"good": lambda: 1, "bad": fail})
    assert (tried["good"].results, len(tried["good"].noises)) == ([1, 1, 1], 3)
    assert tried["bad"] == Measurements([], "lost two messages")
    assert capsys.readouterr().err == "FAILED: bad: lost two messages\n"


def test_ratios_are_those_of_rounds() -> None:
    tried = {
        "base": Measurements([Measured(100.0, 10.0), Measured(50.0, 10.0)]),
        "ours": Measurements([Measured(200.0, 5.0), Measured(100.0, 5.0)]),
        "none": Measurements[Measured]([], "broken"),
    }
    base, ours, none = compare("work", {"base": 10, "ours": 20, "none": 10}, tried)
    assert (base.ratio, ours.ratio, ours.cpu_ratio, ours.count) == (1.0, 2.0, 2.0, 20)
    assert (none.rate, none.ratio, none.failure) == (None, None, "broken")


def test_what_is_not_installed_has_a_row_that_says_what_it_needs(tmp_path: Path) -> None:
    absent = replace(LIBRABBITMQ, files={"cc": tmp_path / "client", "here": tmp_path})
    (row,) = not_installed("hop", [PLAIN_PIKA, absent])
    assert (row.entry, row.missing, row.rate, row.failure) == ("librabbitmq (C)", "cc", None, "")


@pytest.mark.parametrize("size", [0, 10, CHUNK, 3 * CHUNK])
def test_what_fills_a_queue_is_in_frames_that_the_broker_takes(size: int) -> None:
    data, found = published("work", 7, b"x" * size), list[object]()
    while data:
        length, _, value = frame.unmarshal(data)
        assert length <= CHUNK
        found.append(value)
        data = data[length:]
    method, head, *bodies = found
    assert isinstance(method, Basic.Publish)
    assert isinstance(head, ContentHeader)
    assert b"".join(part.value or b"" for part in bodies if isinstance(part, ContentBody)) == b"x" * size
    assert (method.routing_key, head.body_size) == ("work", size)
    assert (head.properties.message_id, head.properties.delivery_mode) == (f"{7:032x}", 2)


@pytest.mark.parametrize(("size", "at_least", "at_most"), [(0, 90, 115), (10_000, 9_980, 10_020)])
def test_bodies_are_as_large_as_they_should_be(size: int, at_least: int, at_most: int) -> None:
    assert at_least <= len(json.dumps(body(12345, size))) <= at_most


def test_a_job_travels_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(work="hop", count=3, source="a", target="b", processes=2)
    for name, value in job.variables().items():
        monkeypatch.setenv(name, value)
    assert Job.from_environment() == job


def test_the_picture_is_xml_with_every_entry() -> None:
    spread = {"median": 10.0, "min": 9.0, "max": 12.0}
    row = {"scenario": "consume <1>", "entry": "mqrunner", "rate": spread, "ratio": 2.0, "failure": "", "runs": [{}]}
    failed = {**row, "entry": "other & co", "rate": None, "failure": "lost"}
    machine = {"cores": 2, "python": "3.11", "at": "2026-01-01T00:00:00"}
    texts = [element.text for element in ElementTree.fromstring(draw([row, failed], machine)).iter()]
    assert {"consume <1>", "mqrunner", "other & co", "failed", "10/s  ×2"} <= set(texts)


def test_samples_belong_to_the_innermost_part() -> None:
    root = str(ROOT)
    loop = ("/lib/asyncio/base_events.py", "BaseEventLoop._run_once")
    engine = (f"{root}/runner/runtime/execution.py", "Execution.run")
    send = ("/lib/asyncio/selector_events.py", "_SelectorSocketTransport.write")
    assert profiling.part_of([send, engine, loop]) == "delivery engine"
    assert profiling.part_of([send, loop, engine]) == profiling.OTHER
    found = profiling.share_out("memory", 10, 8.0, [([engine, loop], 3), ([send, loop], 1)])
    assert found.parts == {"delivery engine": 6.0, profiling.OTHER: 2.0}


def test_the_files_of_each_part_exist() -> None:
    ours = [piece for pieces in profiling.PARTS.values() for piece in pieces if piece.startswith("runner/")]
    assert [piece for piece in ours if not any(ROOT.glob(f"{piece}*"))] == []


def test_a_flame_graph_has_a_box_for_each_function_below_the_loop() -> None:
    root = str(ROOT)
    loop = ("/lib/asyncio/base_events.py", "BaseEventLoop._run_once")
    engine = (f"{root}/runner/runtime/execution.py", "Execution.run")
    send = ("/lib/asyncio/selector_events.py", "_SelectorSocketTransport.write")
    samples = [([send, engine, loop, ("/lib/main.py", "main")], 1), ([engine, loop], 2), ([loop], 1)]
    found = profiling.picture(profiling.share_out("RabbitMQ, hop", 10, 8.0, samples), samples)
    hints = {element.text for element in ElementTree.fromstring(found.svg).iter() if element.tag.endswith("}title")}
    assert found.name == "profile-rabbitmq-hop.svg"
    assert hints == {
        "RabbitMQ, hop: 8.0 µs a message (10 messages, 4 samples)",
        "runner/runtime/execution: Execution.run: 6.00 µs, 75.0% (delivery engine)",
        "asyncio/selector_events: _SelectorSocketTransport.write: 2.00 µs, 25.0% (delivery engine)",
        f"event loop: 2.00 µs, 25.0% ({profiling.OTHER})",
    }


def test_a_spread_is_the_median_and_the_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


QUIET, BUSY, CROWDED = Noise(1.02, 0.03), Noise(1.01, 0.4), Noise(1.9, None)


@pytest.mark.parametrize(
    ("noises", "cell", "warning"),
    [
        ([], "", ""),
        ([QUIET] * 5, "", ""),
        ([QUIET] * 4 + [BUSY], "1 of 5", ""),  # one of five does not move the median
        ([QUIET] * 3 + [BUSY, CROWDED], "2 of 5, TOO BUSY", "TOO BUSY: other work disturbed 2 of 5 measurements"),
    ],
)
def test_numbers_of_a_busy_machine_are_not_to_be_believed(noises: list[Noise], cell: str, warning: str) -> None:
    assert disturbed(noises) == cell
    assert noise.warning(noises).startswith(warning)
    assert bool(noise.warning(noises)) == bool(warning)


def test_what_a_measurement_itself_uses_is_not_other_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two processors: of 200 ticks 120 were used, 100 of them by us, our child and its child."""

    def write(cpu: str, *processes: tuple[int, int, int]) -> None:
        (tmp_path / "stat").write_text(f"cpu {cpu}\ncpu0 {cpu}\n")
        for pid, parent, ticks in processes:
            (tmp_path / str(pid)).mkdir(exist_ok=True)
            fields = f"S {parent} {'0 ' * 9}{ticks} 0 0 0 20"
            (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (strange) name) {fields}")

    def measure() -> str:
        write("1100 0 1020 1080 0 0 0 0 0 0", (own, 1, 30), (7, own, 50), (3, 7, 70), (9, 1, 400))
        return "result"

    own = os.getpid()
    monkeypatch.setattr(noise, "PROC", tmp_path)
    write("1000 0 1000 1000 0 0 0 0 0 0", (own, 1, 10), (7, own, 20), (3, 7, 20), (9, 1, 300))
    result, found = noise.watched(measure)
    assert result == "result"
    assert found.others == pytest.approx(0.1)
    assert found.stretch > 0
