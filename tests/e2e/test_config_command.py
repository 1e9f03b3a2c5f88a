"""`runner config`: stdout is the pipeline, errors are those of `validate`."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.process import ROOT, RunnerProcess


async def run(*arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> tuple[int, RunnerProcess]:
    async with RunnerProcess("config", *arguments, cwd=cwd, env=env) as runner:
        return await runner.wait(), runner


async def test_the_printed_pipeline_is_valid_and_the_same(tmp_path: Path) -> None:
    """What `config` prints can be stored, validated and printed again."""
    code, first = await run("pipelines/fulfilment.yaml", cwd=ROOT)
    assert (code, first.stderr) == (0, "")
    (tmp_path / "printed.yaml").write_text(first.stdout)
    code, second = await run("printed.yaml", cwd=tmp_path)
    assert (code, second.stdout) == (0, first.stdout)
    async with RunnerProcess("validate", tmp_path / "printed.yaml", cwd=ROOT) as runner:
        assert await runner.wait() == 0, runner.stdout


async def test_variables_are_put_in_and_passwords_are_not_shown(tmp_path: Path) -> None:
    """From the environment and from --env-file; the origin names the variable."""
    (tmp_path / "pipeline.yaml").write_text(
        "version: 1\nbroker: ${URL}\nqueues: {q: }\nsubscribers: {s: {from: q, handler: 'a:b', concurrency: '${N}'}}\n"
    )
    (tmp_path / "env").write_text("N=7\n")
    environ = {"URL": "amqp://app:S3CR3T@rabbit/shop"}
    code, runner = await run("pipeline.yaml", "--origin", "--env-file", "env", cwd=tmp_path, env=environ)
    assert code == 0, runner.stderr
    assert "S3CR3T" not in runner.stdout + runner.stderr
    found = yaml.safe_load(runner.stdout)
    assert found["broker"]["url"] == "amqp://app:***@rabbit/shop"
    assert found["subscribers"]["s"]["concurrency"] == 7
    (line,) = [line for line in runner.stdout.splitlines() if "concurrency" in line]
    assert line.endswith("# pipeline.yaml:4 (${N})")


async def test_an_invalid_pipeline_prints_its_problems_and_nothing_else(tmp_path: Path) -> None:
    """Exit code 78, all problems on stderr, nothing on stdout."""
    (tmp_path / "pipeline.yaml").write_text(
        "version: 1\nqueues: {q: {typ: classic}}\nproducers: {s: {to: p, handler: 'a:b'}}\n"
    )
    code, runner = await run("pipeline.yaml", cwd=tmp_path)
    assert (code, runner.stdout) == (78, "")
    assert "error[unknown-key]" in runner.stderr
    assert 'no queue or event is called "p"' in runner.stderr


async def test_a_folder_with_several_pipelines_is_wrong_usage() -> None:
    """One pipeline is printed at a time."""
    code, runner = await run("pipelines", cwd=ROOT)
    assert (code, runner.stdout) == (2, "")
    assert "pipelines/orders.yaml" in runner.stderr
