"""`--overlay`, `--set` and `--except` on the command line: every command works on the changed pipeline."""

from __future__ import annotations

import json

from tests.foreign import Foreign
from tests.project import Project

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.other: {}}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle}
      skip: {from: UNIQUE.other, handler: work:handle}
"""
HANDLERS = """
    def handle(order: str, mark: str = "base") -> None:
        note(f"{mark} {order}")
"""


async def test_overlays_reach_the_workers_and_what_is_left_out_keeps_its_messages(
    rabbit_project: Project, foreign: Foreign
) -> None:
    project = rabbit_project
    project.write(PIPELINE, HANDLERS)
    (project.folder / "prod.yaml").write_text("subscribers: {handle: {with: {mark: prod}, concurrency: 1}}\n")
    changes = ("--overlay", "prod.yaml", "--set", "subscribers.handle.with.mark=set", "--set", "name=changed")
    await project.do("apply", *changes)
    foreign.publish(project.name("work"), b"one", b"two")
    foreign.publish(project.name("other"), b"three")
    runner = await project.do("up", "--workers", "2", "--until-idle", "--except", "skip", *changes)
    assert sorted(project.ledger.payloads()) == ["set one", "set two"]
    assert {line["pipeline"] for line in runner.logs if line["event"] == "message.handled"} == {"changed"}
    status = await project.do("status", "--json", "--set", "subscribers.skip.enabled=false")
    (pipeline,) = json.loads(status.stdout)
    assert pipeline["disabled"] == ["skip"]
    assert {queue["queue"]: queue["ready"] for queue in pipeline["queues"]} == {
        project.name("work"): 0,
        project.name("other"): 1,
    }


async def test_each_command_reports_the_option_that_is_wrong(memory_project: Project) -> None:
    memory_project.write(PIPELINE, HANDLERS)
    wrong = ("--set", "subscribers.handel.concurrency=2")
    for command in ("validate", "config", "graph", "up"):
        runner = await memory_project.run_to_end(command, memory_project.file, *wrong, code=78)
        told = runner.stdout + runner.stderr
        assert "1 | --set subscribers.handel.concurrency=2\n  |                   ^^^^^^\n" in told
