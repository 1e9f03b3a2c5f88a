"""What becomes of a worker that has ended, and after which pause it is started again."""

from __future__ import annotations

import pytest

from runner.workers.restart_policy import Decision, RestartBackoff, WorkerExit, decide


@pytest.mark.parametrize(
    ("ended", "is_first", "is_draining", "verdict"),
    [
        (WorkerExit(-9, 5.0, has_run=True), False, False, "restart"),
        (WorkerExit(70, 5.0, has_run=True), False, False, "restart"),
        (WorkerExit(0, 5.0, has_run=True), False, False, "restart"),  # only this worker was stopped
        (WorkerExit(0, 5.0, has_run=True, is_done=True), False, False, "done"),
        (WorkerExit(78, 0.1, has_run=False), True, False, "give up"),
        (WorkerExit(69, 0.1, has_run=False), True, False, "give up"),
        (
            WorkerExit(-9, 0.1, has_run=False),
            True,
            False,
            "restart",
        ),  # out of memory, say: it has said nothing of itself
        (WorkerExit(69, 0.1, has_run=False), False, False, "restart"),  # a later start: the others still run
        (WorkerExit(-9, 5.0, has_run=True), False, True, "done"),
        (WorkerExit(78, 0.1, has_run=False), True, True, "done"),
    ],
)
def test_an_exit_is_judged(ended: WorkerExit, is_first: bool, is_draining: bool, verdict: Decision) -> None:
    assert decide(ended, is_first=is_first, is_draining=is_draining) == verdict


def test_pauses_grow_and_are_short_again_after_a_good_run() -> None:
    longest = RestartBackoff(lambda _, ceiling: ceiling)
    crash = WorkerExit(-11, 1.0, has_run=True)
    assert [longest.pause_s(crash) for _ in range(7)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert longest.pause_s(WorkerExit(-11, 60.0, has_run=True)) == 1.0
    assert longest.pause_s(crash) == 2.0
    assert longest.pause_s(WorkerExit(0, 1.0, has_run=True)) == 1.0, "it was stopped on purpose"
