"""`runner validate`, and what `runner up` does with a file that is wrong: everything is said, nothing is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.foreign import Foreign
from tests.project import Project

VALID = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers:
      send: {handler: work:send, to: UNIQUE.work}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle}
"""
VALID_HANDLERS = """
    def send(): return "order"
    def handle(order: str) -> None: note(order)
"""
ODD = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.unread: {}}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle}
"""
WRONG = """\
version: 1
queues: {UNIQUE.work: {}, UNIQUE.more: {}}
producers:
  send: {handler: work:send, to: UNIQUE.wrk}
subscribers:
  handle: {from: UNIQUE.work, handlr: work:handle}
  other: {from: UNIQUE.more, handler: work:handle, timeout: 10}
"""
WRONG_CODES = [(4, "unknown-name"), (6, "unknown-key"), (7, "bad-duration")]


async def test_a_wrong_file_is_told_in_full_and_nothing_is_started(rabbit_project: Project, foreign: Foreign) -> None:
    """`up` exits 78 with every problem on stderr; no handler was called, no queue or exchange was declared."""
    rabbit_project.write(WRONG, VALID_HANDLERS)
    runner = await rabbit_project.do("up", code=78)
    said = runner.stderr
    for _, code in WRONG_CODES:
        assert f"error[{code}]" in said
    assert '"handlr"' in said
    assert 'did you mean "handler"?' in said
    assert "^^^^^^" in said
    assert runner.stdout == ""
    assert "Traceback" not in said
    assert rabbit_project.ledger.entries() == []
    names = [rabbit_project.name(name) for name in ("work", "work.dead", "wrk", "retry.1000")]
    assert [name for name in names if foreign.has_queue(name)] == []


async def test_handlers_that_cannot_be_imported_keep_everything_from_starting(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """One bad import path: exit 78, and the good subscriber beside it has not run or declared anything."""
    rabbit_project.pipeline(
        VALID + "      broken: {from: UNIQUE.other, handler: nowhere:handle}\n    events: {UNIQUE.other: }\n"
    )
    rabbit_project.handlers(VALID_HANDLERS)
    runner = await rabbit_project.do("up", code=78)
    assert "error[module-not-found]" in runner.stderr
    assert runner.stdout == ""
    assert not foreign.has_queue(rabbit_project.name("work"))


async def test_warnings_do_not_keep_a_pipeline_from_running(project: Project) -> None:
    """`up` says what is odd, on stderr, and runs."""
    project.write(ODD, VALID_HANDLERS)
    runner = await project.up_until_idle()
    assert "warning[unread-queue]" in runner.stderr


async def test_a_valid_pipeline_is_told_to_be_valid(memory_project: Project) -> None:
    """Exit 0; stdout, where problems go, is empty."""
    memory_project.write(VALID, VALID_HANDLERS)
    runner = await memory_project.run_to_end("validate", memory_project.file)
    assert (runner.stdout, runner.stderr) == ("", "1 pipeline valid\n")


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), 1)])
async def test_warnings_fail_only_when_asked_to(memory_project: Project, options: tuple[str, ...], code: int) -> None:
    """`validate --strict` exits 1 over a warning, without it the exit code is 0."""
    memory_project.write(ODD, VALID_HANDLERS)
    runner = await memory_project.run_to_end("validate", memory_project.file, *options, code=code)
    assert f"warning[unread-queue]: queues.{memory_project.name('unread')}" in runner.stdout


async def test_problems_are_lines_for_editors(memory_project: Project) -> None:
    """`--format concise`: file, line, column, code, place, problem and help, one line each; exit 78."""
    memory_project.write(WRONG, VALID_HANDLERS)
    runner = await memory_project.run_to_end("validate", memory_project.file, "--format", "concise", code=78)
    assert runner.stdout.splitlines() == [
        f"{memory_project.file}:4:34: error[unknown-name] producers.send.to: no queue or event is called "
        f'"{memory_project.name("wrk")}"; did you mean "{memory_project.name("work")}"?',
        f'{memory_project.file}:6:34: error[unknown-key] subscribers.handle: unknown key "handlr"; '
        'did you mean "handler"?',
        f"{memory_project.file}:7:64: error[bad-duration] subscribers.other.timeout: must be a duration with a unit, "
        "not the number 10; write its unit: 10s",
    ]


async def test_problems_are_data_for_programs(memory_project: Project) -> None:
    """`--format json`: a list of objects on stdout, and nothing else there."""
    memory_project.write(WRONG, VALID_HANDLERS)
    runner = await memory_project.run_to_end("validate", memory_project.file, "--format", "json", code=78)
    problems = json.loads(runner.stdout)
    keys = {"file", "line", "column", "end_line", "end_column", "code", "severity", "path", "message", "help"}
    keys |= {"page", "fix"}
    assert all(problem.keys() == keys for problem in problems)
    assert [(problem["line"], problem["code"]) for problem in problems] == WRONG_CODES
    assert {problem["file"] for problem in problems} == {str(memory_project.file)}


async def test_a_valid_pipeline_is_an_empty_list_for_programs(memory_project: Project) -> None:
    """`--format json` of a pipeline without problems is `[]`."""
    memory_project.write(VALID, VALID_HANDLERS)
    runner = await memory_project.run_to_end("validate", memory_project.file, "--format", "json")
    assert json.loads(runner.stdout) == []


async def test_import_paths_that_lead_nowhere_are_blamed_exactly(memory_project: Project) -> None:
    """Each kind of mistake has its own code and says whose it is, with the line where the user's own code broke."""
    memory_project.pipeline(
        """
        version: 1
        events: {UNIQUE.paid: }
        subscribers:
          no_module: {from: UNIQUE.paid, handler: wrk:handle}
          no_submodule: {from: UNIQUE.paid, handler: work.deep:handle}
          fails: {from: UNIQUE.paid, handler: fails:handle}
          fails_inside: {from: UNIQUE.paid, handler: imports_fails:handle}
          leaves: {from: UNIQUE.paid, handler: leaves:handle}
          bad_syntax: {from: UNIQUE.paid, handler: bad_syntax:handle}
          no_attribute: {from: UNIQUE.paid, handler: work:handel}
          not_callable: {from: UNIQUE.paid, handler: work:LIMIT}
          no_parameter: {from: UNIQUE.paid, handler: work:nothing}
          too_many: {from: UNIQUE.paid, handler: work:two}
          not_wanted: {from: UNIQUE.paid, handler: work:handle, with: {colour: red}}
          fine: {from: UNIQUE.paid, handler: work:handle}
        """
    )
    memory_project.handlers(
        """
        LIMIT = 3
        def handle(order: str) -> None: ...
        def nothing() -> None: ...
        def two(order: str, database) -> None: ...
        """
    )
    memory_project.handlers("x = 1\nraise RuntimeError('the database is away')", module="fails")
    memory_project.handlers("import fails", module="imports_fails")
    memory_project.handlers("raise SystemExit(3)", module="leaves")
    memory_project.handlers("def handle(:", module="bad_syntax")
    runner = await memory_project.run_to_end("validate", memory_project.file, "--format", "json", code=78)

    blamed = {problem["path"].split(".")[1]: problem for problem in json.loads(runner.stdout)}
    assert {name: problem["code"] for name, problem in blamed.items()} == {
        "no_module": "module-not-found",
        "no_submodule": "module-not-found",
        "fails": "module-failed",
        "leaves": "module-failed",
        "bad_syntax": "module-failed",
        "no_attribute": "attribute-not-found",
        "not_callable": "not-callable",
        "no_parameter": "wrong-parameters",
        "too_many": "wrong-parameters",
        "not_wanted": "wrong-parameters",
    }
    assert "the database is away (also named by subscribers.fails_inside)" in blamed["fails"]["message"]
    places = {name: (Path(item["file"]).name, item["line"]) for name, item in blamed.items()}
    assert (places["fails"], places["bad_syntax"]) == (("fails.py", 3), ("bad_syntax.py", 2))
    assert places["too_many"][0] == "work.py"
    assert blamed["no_attribute"]["help"] == 'did you mean "handle"?'
    assert blamed["no_module"]["help"] == 'did you mean "work"?'
    assert "database" in blamed["too_many"]["message"]
    assert "colour" in blamed["not_wanted"]["message"]


async def test_validating_connects_to_nothing_and_calls_nothing(memory_project: Project) -> None:
    """A pipeline for a broker that is not there is valid all the same."""
    memory_project.write(VALID + "    broker: ${RABBITMQ_URL}\n", VALID_HANDLERS)
    env = {"RABBITMQ_URL": "amqp://user:S3CR3T@127.0.0.1:1/"}
    await memory_project.run_to_end("validate", memory_project.file, env=env)
    assert memory_project.ledger.entries() == []


@pytest.mark.parametrize("verb", ["up", "validate"])
async def test_files_that_are_not_there_are_named(memory_project: Project, verb: str) -> None:
    """A path that does not exist, and a folder without pipelines: exit 78 and the path on stderr or stdout."""
    (memory_project.folder / "empty").mkdir()
    for path in ("missing.yaml", "empty"):
        runner = await memory_project.run_to_end(verb, path, code=78)
        assert path in runner.stderr + runner.stdout


async def test_a_bad_environment_file_is_wrong_usage(memory_project: Project) -> None:
    """A line of --env-file that is not NAME=value: exit 2, with its number, for every verb."""
    memory_project.write(VALID, VALID_HANDLERS)
    (memory_project.folder / "env").write_text("GOOD=1\nnonsense\n")
    for verb in ("up", "validate"):
        runner = await memory_project.run_to_end(verb, memory_project.file, "--env-file", "env", code=2)
        assert "env:2: not a NAME=value line" in runner.stderr


async def test_pipelines_that_define_a_queue_differently_do_not_run_together(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Two files, one queue, other options: exit 78 with both named, and nothing declared."""
    for name, options in (("first", "{}"), ("second", "{max_length: 10}")):
        rabbit_project.pipeline(
            f"""
            version: 1
            name: UNIQUE-{name}
            queues: {{UNIQUE.shared: {options}}}
            subscribers:
              {name}: {{from: UNIQUE.shared, handler: work:handle}}
            """,
            file=f"both/{name}.yaml",
        )
    rabbit_project.handlers(VALID_HANDLERS)
    runner = await rabbit_project.run_to_end("up", "both", *rabbit_project.place.arguments, code=78)
    assert "error[topology-conflict]" in runner.stderr
    assert rabbit_project.name("shared") in runner.stderr
    assert "both/second.yaml" in runner.stderr
    assert "both/first.yaml" in runner.stderr
    assert not foreign.has_queue(rabbit_project.name("shared"))


async def test_a_command_ends_though_a_module_has_started_a_thread(memory_project: Project) -> None:
    """Python would wait for a thread that is no daemon; the warning names it."""
    memory_project.pipeline(VALID)
    memory_project.handlers(
        f"{VALID_HANDLERS}\n    import threading\n    threading.Thread(target=threading.Event().wait).start()"
    )
    runner = await memory_project.run_to_end("validate", memory_project.file)
    assert "starts the thread" in runner.stdout
