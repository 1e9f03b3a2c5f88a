"""`--env-file` fills the environment of the process, and of every process that it starts."""

from __future__ import annotations

from tests.project import Project, lines

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers: {make: {handler: work:make, to: UNIQUE.work}}
    subscribers:
      here: {from: UNIQUE.work, handler: work:handle, retry: none, OPTIONS}
"""
HANDLERS = """
    import os

    KEY = os.environ["SHOP_KEY"]

    def make():
        yield "1"

    def handle(order: str) -> None:
        note(f"{order} {KEY} {os.environ['SHOP_ZONE']}")
"""


def prepare(project: Project, options: str = "") -> None:
    project.write(PIPELINE.replace(", OPTIONS", options and f", {options}"), HANDLERS)
    (project.folder / "env").write_text("SHOP_KEY=abc\nSHOP_ZONE=file\n")


async def test_modules_of_handlers_find_it_at_import(memory_project: Project) -> None:
    """With `validate` and `up`; the environment wins."""
    prepare(memory_project)
    env = {"SHOP_ZONE": "environment"}
    await memory_project.run_to_end("validate", memory_project.file, "--env-file", "env")
    await memory_project.up_until_idle("--env-file", "env", env=env)
    assert memory_project.ledger.payloads() == ["1 abc environment"]


async def test_processes_of_handlers_find_it(memory_project: Project) -> None:
    """`run_in: process`."""
    prepare(memory_project, "run_in: process")
    await memory_project.up_until_idle("--env-file", "env")
    assert memory_project.ledger.payloads() == ["1 abc file"]


async def test_workers_find_it(rabbit_project: Project) -> None:
    """`--workers`, and what the environment has wins there, too."""
    prepare(rabbit_project)
    arguments = ("--workers", "2", "--env-file", "env", "--log-format", "json")
    async with rabbit_project.running(*arguments, env={"SHOP_ZONE": "environment"}):
        await rabbit_project.ledger.wait_for(1)
    assert rabbit_project.ledger.payloads() == ["1 abc environment"]


async def test_options_of_the_command_find_it(memory_project: Project) -> None:
    """`RUNNER_BROKER` in the file is the broker: nothing is ignored in silence."""
    prepare(memory_project)
    memory_project.pipeline(PIPELINE.replace(", OPTIONS", "") + "    broker: {connect_timeout: 500ms}\n")
    with (memory_project.folder / "env").open("a") as file:
        file.write("RUNNER_BROKER=amqp://127.0.0.1:1/nowhere\n")
    runner = await memory_project.run_to_end("plan", memory_project.file, "--env-file", "env", code=69)
    assert "127.0.0.1:1" in runner.stderr
    assert not lines(runner, "pipeline.started")


async def test_a_file_that_is_no_env_file_is_wrong_usage(memory_project: Project) -> None:
    """Exit 2 and one sentence, whatever is in it, for every verb; its text is not shown."""
    prepare(memory_project)
    contents = {"utf16": "A=canary\n".encode("utf-16"), "latin": b"A=canary\xfc\n", "cut": b'A="can"ary\n'}
    for name, content in contents.items():
        (memory_project.folder / name).write_bytes(content)
        for verb in ("up", "validate", "config", "graph"):
            runner = await memory_project.run_to_end(verb, memory_project.file, "--env-file", name, code=2)
            assert "--env-file" in runner.stderr
            assert name in runner.stderr
            assert "canary" not in runner.stderr
