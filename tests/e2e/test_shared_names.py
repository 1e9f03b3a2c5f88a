"""Two pipelines under one name on one virtual host: said on both sides, but not of one pipeline that runs in parts."""

from __future__ import annotations

from tests.project import Project, lines, started, stop

MINE = """
    version: 1
    name: UNIQUE
    queues: {UNIQUE.a: }
    producers: {beat: {handler: work:beat, every: 1s, to: UNIQUE.a}}
    subscribers: {see: {from: UNIQUE.a, handler: work:see}}
"""
HANDLERS = """
    def beat(): return "beat"
    def see(x: str): note(x)
"""


async def test_another_project_with_the_same_name_is_said_on_both_sides(rabbit_project: Project) -> None:
    """With its file; the names of what runs may even be the same."""
    rabbit_project.write(MINE, HANDLERS)
    rabbit_project.pipeline(MINE.replace("UNIQUE.a", "UNIQUE.b"), "other/pipeline.yaml")
    async with rabbit_project.running() as mine:
        await mine.wait_for(lambda line: line["event"] == "leadership.won")
        async with rabbit_project.run(
            "up", "other/pipeline.yaml", *rabbit_project.place.arguments, env={"PYTHONPATH": str(rabbit_project.folder)}
        ) as other:
            told_other = await other.wait_for(lambda line: line["event"] == "pipeline.name_shared")
            told_mine = await mine.wait_for(lambda line: line["event"] == "pipeline.name_shared")
            assert (told_mine["pipeline"], told_mine["level"]) == (rabbit_project.unique, "warning")
            assert told_mine["other"].startswith("other/pipeline.yaml on ")
            assert told_mine["other"].endswith(f", process {other.pid}")
            assert told_other["other"].endswith(f", process {mine.pid}")
            assert "another `name:`" in told_mine["hint"]
            await stop(other)


async def test_parts_of_one_pipeline_are_one_pipeline(rabbit_project: Project) -> None:
    """`--only`, and two processes of the same file."""
    rabbit_project.write(MINE, HANDLERS)
    async with rabbit_project.up() as whole, rabbit_project.up("--only", "beat") as part:
        await started(whole, part)
        for runner in (whole, part):
            await runner.wait_for(lambda line: line["event"] in ("leadership.won", "producers.standby"))
        for runner in (whole, part):
            await stop(runner)
            assert not lines(runner, "pipeline.name_shared")
