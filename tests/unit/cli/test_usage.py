"""Wrong usage of the command line: what is said, and that obeying it gives a command line that is right."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import cli as package
from runner.cli import cli, rewrite, usage
from runner.cli.verb import Verb
from runner.tables import read_table

PIPELINE = """version: 1
name: shop
queues: {order_queue: }
events: {order.paid: }
subscribers: {ship: {from: order_queue, handler: shop:ship}}
"""

EXAMPLES = read_table("runner.cli", "examples.txt", 2)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one pipeline, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RUNNER_BROKER", "RUNNER_MANAGEMENT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    return tmp_path


def run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Return the exit code, the message and the help of a command line."""
    monkeypatch.setattr(sys, "argv", ["runner", *shlex.split(line)])
    code = package._run()
    said = capsys.readouterr().err
    message, _, help_ = said.removeprefix("error: ").partition("\n  = help: ")
    return code, message.strip(), help_.strip()


@pytest.mark.parametrize(
    ("line", "help_"),
    [
        (
            "resume pipeline.yaml ship --reason back",
            "leave it out: runner resume pipeline.yaml ship; only `runner pause` has it",
        ),
        (
            "tap pipeline.yaml order.paid --follow",
            "leave it out: runner tap pipeline.yaml order.paid; it goes on until Ctrl-C",
        ),
        ("up pipeline.yaml -e KEY=abc", "write the variable before the command: KEY=abc runner up pipeline.yaml"),
        (
            "dead drop pipeline.yaml",
            "write: runner dead drop pipeline.yaml --all --yes "
            "(all of them; --id, --error and other filters choose some)",
        ),
        (
            "dead drop pipeline.yaml --all",
            "write: runner dead drop pipeline.yaml --all --yes (or look first, with --dry-run)",
        ),
        ("test pipeline.yaml -k paid", "write: runner test pipeline.test.yaml --only paid"),
        ("test . -k paid", "write: runner test . --only paid"),
        ("init billing.yaml", "init makes a folder: runner init billing"),
        ("schema --output .", "write the name of a file in it: runner schema --output ./NAME"),
    ],
)
def test_a_help_says_what_becomes_of_each_word(
    line: str, help_: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "pipeline.test.yaml").write_text("pipeline: pipeline.yaml\ntests: {paid: {}}\n")
    assert run(line, monkeypatch, capsys)[2] == help_


def parsed(line: str) -> click.Context:
    """Parse a command line without running its command. Raises UsageError."""
    context = cli.make_context("runner", shlex.split(line), resilient_parsing=False)
    group: click.Group = cli
    arguments = [*context._protected_args, *context.args]
    while True:
        name, command, arguments = group.resolve_command(context, arguments)
        assert command is not None
        context = command.make_context(name, arguments, parent=context)
        if not isinstance(command, click.Group):
            return context
        group, arguments = command, [*context._protected_args, *context.args]


PATH_NEEDED = "needs the path of a pipeline"

REWRITTEN = [
    ("up --watch --workers 2 pipeline.yaml", "--workers: --watch reloads one process", "up --watch pipeline.yaml"),
    (
        "up --until-idle pipeline.yaml --watch",
        "--until-idle: --watch runs until it is stopped",
        "up pipeline.yaml --watch",
    ),
    (
        "status pipeline.yaml --fail-if 'dead>0' --watch --interval 5s",
        "--watch: a condition of --fail-if is checked once",
        "status pipeline.yaml --fail-if 'dead>0' --interval 5s",
    ),
    (
        "dead replay pipeline.yaml --local --edit --id 4f1c22aa",
        "--edit: --local tries the handler of the queue they failed in",
        "dead replay pipeline.yaml --local --id 4f1c22aa",
    ),
    (
        "validate pipeline.yaml --format x.json",
        '--format: "x.json" is none of: full, concise, json, github, sarif',
        "validate pipeline.yaml --format json > x.json",
    ),
    (
        "tap pipeline.yaml order.paid --limit --json 5",
        "--limit needs a value",
        "tap pipeline.yaml order.paid --limit 5 --json",
    ),
    (
        "tap pipeline.yaml order.paid --limit --follow 5",
        '--limit: "--follow" stands in place of its value',
        "tap pipeline.yaml order.paid --limit 5",
    ),
    (
        "up --http pipeline.yaml",
        '--http: "pipeline.yaml" is not HOST:PORT',
        "up --http 127.0.0.1:8080 pipeline.yaml",
    ),
    ("up pipeline.yaml -http :9000", '"-http" has one dash', "up pipeline.yaml --http 127.0.0.1:9000"),
    ("up pipeline.yaml -log-level=debug", '"-log-level=debug" has one dash', "up pipeline.yaml --log-level=debug"),
    (
        "up pipeline.yaml --set subscribers.ship.concurrency: 5",
        '"5" is not a path',
        "up pipeline.yaml --set subscribers.ship.concurrency=5",
    ),
    ("up pipeline.yaml --workers 2 4", '"4" is not a path', "up pipeline.yaml --workers 2"),
    (
        "publish pipeline.yaml order_queue 1 --delay 5 minutes",
        '--delay: "5" is not a duration',
        "publish pipeline.yaml order_queue 1 --delay 5m",
    ),
    (
        "publish pipeline.yaml orders.jsonl",
        "NAME: a payload stands in its place",
        "publish pipeline.yaml order_queue @orders.jsonl (there are: order_queue, order.paid)",
    ),
    (
        "publish pipeline.yaml '[1]'",
        "NAME: a payload stands in its place",
        "publish pipeline.yaml order_queue '[1]' (there are: order_queue, order.paid)",
    ),
    (
        "dead replay pipeline.yaml order_queue --id=abc123 def456",
        "runner dead replay has more arguments than it takes",
        "dead replay pipeline.yaml order_queue --id=abc123 --id def456",
    ),
    ("graph pipeline.yaml --svg", '"runner graph" has no option --svg', "graph pipeline.yaml --format svg"),
    ("validate '*.yml'", '"*.yml" is the name of no file', "validate pipeline.yaml"),
    ("up 'pipe*.yaml'", '"pipe*.yaml" is in quotes: the shell leaves it as it is', "up pipeline.yaml"),
    (
        "publish '*.yaml' order_queue 1",
        '"*.yaml" is in quotes: the shell leaves it as it is',
        "publish pipeline.yaml order_queue 1",
    ),
    (
        "up pipeline.yaml --workers=all",
        "--workers: must be a whole number from 1 on, not all",
        'up pipeline.yaml --workers 1 (an example, as "all" is no number)',
    ),
    (
        "tap pipeline.yaml order.paid --limit --follow",
        '--limit: "--follow" stands in place of its value',
        "tap pipeline.yaml order.paid --limit 1 (an example)",
    ),
    (
        "run pipeline.yaml --until-empty",
        '"runner" has no command "run"; "runner up" has no option --until-empty',
        "up pipeline.yaml --until-idle",
    ),
    (
        "plan pipeline.yaml --out plan.json",
        '"runner plan" has no option --out',
        "plan pipeline.yaml --json > plan.json",
    ),
    ("status pipeline.yaml --watch 5", '"5" is not a path', "status pipeline.yaml --watch --interval 5s"),
    ("pipeline.yaml", '"pipeline.yaml" is a file, not a command', "up pipeline.yaml"),
    ("./pipeline.yaml --until-idle", '"./pipeline.yaml" is a file, not a command', "up ./pipeline.yaml --until-idle"),
    ("other.yml", '"other.yml" is a file, not a command', "up other.yml"),
    (
        "graph pipeline.yaml --output x.svg",
        '"runner graph" has no option --output',
        "graph pipeline.yaml --format svg > x.svg",
    ),
    ("config pipeline.yaml -o out.yaml", '"runner config" has no option -o', "config pipeline.yaml > out.yaml"),
    ("up pipeline.yaml -f more.yaml", '"runner up" has no option -f', "up pipeline.yaml --overlay more.yaml"),
    ("run pipeline.yaml", '"runner" has no command "run"', "up pipeline.yaml"),
    ("start pipeline.yaml", '"runner" has no command "start"', "up pipeline.yaml"),
    ("validat pipeline.yaml", '"runner" has no command "validat"', "validate pipeline.yaml"),
    ("check pipeline.yaml --strict", '"runner" has no command "check"', "validate pipeline.yaml --strict"),
    ("ps pipeline.yaml", '"runner" has no command "ps"', "status pipeline.yaml"),
    ("send pipeline.yaml order_queue 1", '"runner" has no command "send"', "publish pipeline.yaml order_queue 1"),
    ("dead ls pipeline.yaml", '"runner dead" has no command "ls"', "dead list pipeline.yaml"),
    ("export k8s pipeline.yaml", '"runner export" has no command "k8s"', "export kubernetes pipeline.yaml"),
    ("up", f"runner up {PATH_NEEDED}", "up pipeline.yaml"),
    ("validate --strict", f"runner validate {PATH_NEEDED}", "validate --strict pipeline.yaml"),
    ("dead list", f"runner dead list {PATH_NEEDED}", "dead list pipeline.yaml"),
    ("publish order_queue", f"runner publish {PATH_NEEDED} before the name", "publish pipeline.yaml order_queue"),
    ("up -f pipeline.yaml", '"runner up" has no option -f', "up pipeline.yaml"),
    ("up --file=pipeline.yaml", '"runner up" has no option --file', "up pipeline.yaml"),
    ("up --config pipeline.yaml", '"runner up" has no option --config', "up pipeline.yaml"),
    ("validate pipeline.yaml --json", '"runner validate" has no option --json', "validate pipeline.yaml --format json"),
    ("validate pipeline.yaml -o json", '"runner validate" has no option -o', "validate pipeline.yaml --format json"),
    (
        "validate pipeline.yaml --formt json",
        '"runner validate" has no option --formt',
        "validate pipeline.yaml --format json",
    ),
    ("validate pipeline.yaml --quiet", '"runner validate" has no option --quiet', "validate pipeline.yaml"),
    ("up pipeline.yaml -v", '"runner up" has no option -v', "up pipeline.yaml --log-level debug"),
    ("up pipeline.yaml -l debug", '"runner up" has no option -l', "up pipeline.yaml --log-level debug"),
    ("up pipeline.yaml --dry-run", '"runner up" has no option --dry-run', "plan pipeline.yaml"),
    (
        "up pipeline.yaml --url amqp://localhost",
        '"runner up" has no option --url',
        "up pipeline.yaml --broker amqp://localhost",
    ),
    ("dead drop pipeline.yaml -y", '"runner dead drop" has no option -y', "dead drop pipeline.yaml --yes --all"),
    (
        "dead drop pipeline.yaml --id 3fa6 -y",
        '"runner dead drop" has no option -y',
        "dead drop pipeline.yaml --id 3fa6 --yes",
    ),
    ("schema pipeline.json", "runner schema has more arguments than it takes", "schema --output pipeline.json"),
    (
        "apply --recreate pipeline.yaml orders",
        "--recreate has pipeline.yaml as its value",
        "apply pipeline.yaml --recreate orders",
    ),
    (
        "up .env pipeline.yaml",
        'PATH...: ".env" is a file of variables, not a pipeline',
        "up --env-file .env pipeline.yaml",
    ),
    ("dead pipeline.yaml", '"pipeline.yaml" is a file, not a command', "dead list pipeline.yaml"),
    ("dead pipeline.yaml drop", '"pipeline.yaml" is a file, not a command', "dead drop pipeline.yaml"),
    ("pipeline.yaml validate", '"pipeline.yaml" is a file, not a command', "validate pipeline.yaml"),
    ("replay pipeline.yaml", '"runner" has no command "replay"', "dead replay pipeline.yaml"),
    ("ps", '"runner" has no command "ps"', "status pipeline.yaml"),
    ("tail", '"runner" has no command "tail"', "tap pipeline.yaml order.paid"),
    ("worker -A pipeline", '"runner" has no command "worker"; "runner up" has no option -A', "up pipeline.yaml"),
    (
        "-A pipeline.yaml worker --concurrency=4",
        '"runner" has no option -A; "runner up" has no option --concurrency',
        "up pipeline.yaml --set subscribers.ship.concurrency=4; for 4 processes, write --workers 4",
    ),
    ("--log-level debug up pipeline.yaml", '"runner" has no option --log-level', "up --log-level debug pipeline.yaml"),
    ("-f pipeline.yaml up", '"runner" has no option -f', "up pipeline.yaml"),
    ("dead retry pipeline.yaml", '"runner dead" has no command "retry"', "dead replay pipeline.yaml"),
    ("init --name shop", '"runner init" has no option --name', "init shop"),
    (
        "dead replay pipeline.yaml --filter order.id=7",
        '"runner dead replay" has no option --filter',
        "dead replay pipeline.yaml --body order.id=7",
    ),
    (
        "config pipeline.yaml --set subscribers.ship.concurrency 20",
        "--set subscribers.ship.concurrency needs a value",
        "config pipeline.yaml --set subscribers.ship.concurrency=20",
    ),
    ("up pipeline.yaml --watch-files", '"runner up" has no option --watch-files', "up pipeline.yaml --watch"),
    ("up pipeline.yaml --watch=true", "option '--watch' does not take a value", "up pipeline.yaml --watch"),
    ("up pipeline.yaml --watch=false", "option '--watch' does not take a value", "up pipeline.yaml"),
    ("up pipeline.yaml --port 8080", '"runner up" has no option --port', "up pipeline.yaml --http 127.0.0.1:8080"),
    (
        "publish pipeline.yaml --body 1 --queue order_queue",
        '"runner publish" has no option --body; "runner publish" has no option --queue',
        "publish pipeline.yaml order_queue 1",
    ),
    (
        "publish order_queue pipeline.yaml 1",
        'the path of a pipeline comes before "order_queue"',
        "publish pipeline.yaml order_queue 1",
    ),
    ("status order_queue", '"order_queue" is a name in pipeline.yaml, not a path', "status pipeline.yaml"),
    ("up ship", '"ship" is a name in pipeline.yaml, not a path', "up pipeline.yaml --only ship"),
    ("pause", f"runner pause {PATH_NEEDED}", "pause pipeline.yaml ship"),
    ("pause ship pipeline.yaml", 'the path of a pipeline comes before "ship"', "pause pipeline.yaml ship"),
    ("up ––watch pipeline.yaml", '"––watch" begins with a long dash', "up --watch pipeline.yaml"),
    ("status pipeline.yaml --watch 5s", '"5s" is not a path', "status pipeline.yaml --watch --interval 5s"),
    (
        "status pipeline.yaml --watch=5s",
        "option '--watch' does not take a value",
        "status pipeline.yaml --watch --interval 5s",
    ),
    ("test . --coverage=90%", "option '--coverage' does not take a value", "test . --fail-under 90"),
    ("test . 'a paid order'", '"a paid order" is not a path', "test . --only 'a paid order'"),
    ("up pipeline.yaml --set broker amqp://h", '"amqp://h" is not a path', "up pipeline.yaml --set broker=amqp://h"),
    (
        "up pipeline.yaml --overlay a.b=amqp://h",
        '--overlay: "a.b=amqp:/h" is not a file',
        "up pipeline.yaml --set a.b=amqp://h",
    ),
    (
        "up pipeline.yaml --overlay=.env",
        '--overlay: ".env" is a file of variables, not an overlay',
        "up pipeline.yaml --env-file .env",
    ),
    (
        "config pipeline.yaml --set subscribers.ship.retry={attempts: 5}",
        "the value of --set is in several pieces",
        "config pipeline.yaml --set 'subscribers.ship.retry={attempts: 5}'",
    ),
    (
        "up pipeline.yaml --set subscribers.ship.retry={attempts: 5} --until-idle",
        "the value of --set is in several pieces",
        "up pipeline.yaml --set 'subscribers.ship.retry={attempts: 5}' --until-idle",
    ),
    (
        "scale pipeline.yaml ship=4",
        '"runner" has no command "scale"',
        "up pipeline.yaml --set subscribers.ship.concurrency=4",
    ),
    ("scale pipeline.yaml 4", '"runner" has no command "scale"', "up pipeline.yaml --workers 4"),
    ("get queues", '"runner" has no command "get"', "status pipeline.yaml"),
    ("upgrade head", '"runner" has no command "upgrade"', "apply pipeline.yaml"),
    ("dead count pipeline.yaml", '"runner dead" has no command "count"', "dead list pipeline.yaml"),
    ("dead help", 'runner dead has no argument "help"', "dead --help"),
    ("publish help", 'runner publish has no argument "help"', "publish --help"),
    (
        "graph pipeline.yaml --format png -o flow.png",
        '"runner graph" has no option -o',
        "graph pipeline.yaml --format svg > flow.svg",
    ),
    (
        "plan pipeline.yaml -out=shop.plan",
        '"-out=shop.plan" has one dash; "runner plan" has no option --out',
        "plan pipeline.yaml > shop.plan",
    ),
    (
        "apply --recreate pipeline.yaml",
        "--recreate takes a value of its own, before the path",
        "apply pipeline.yaml --recreate NAME",
    ),
    (
        "tap pipeline.yaml order.paid order.lost --limit 2",
        "runner tap takes one name, or a pattern for several",
        "tap pipeline.yaml 'order.*' --limit 2",
    ),
    (
        "publish pipeline.yaml exchange=events routing_key=order.paid 'payload={\"order\": 1}'",
        'runner publish takes its arguments without names, and not as "routing_key=…"',
        "publish pipeline.yaml order.paid '{\"order\": 1}'",
    ),
    (
        "pause pipeline.yaml ship the carrier is down",
        "runner pause has more arguments than it takes",
        "pause pipeline.yaml ship --reason 'the carrier is down'",
    ),
    (
        "dead list pipeline.yaml --error=KeyError price",
        '"price" is not a queue',
        "dead list pipeline.yaml '--error=KeyError price'",
    ),
    ("dead drop pipeline.yaml 595a80 --yes", '"595a80" is not a queue', "dead drop pipeline.yaml --id 595a80 --yes"),
    ("import m.jsonl pipeline.yaml", '"m.jsonl" is a file, not a command', "import messages m.jsonl pipeline.yaml"),
    ("validate pipeline.yaml --fix --dry-run", '"runner validate" has no option --dry-run', "validate pipeline.yaml"),
    (
        "status pipeline.yaml order_queue",
        '"order_queue" is a name in pipeline.yaml, not a path',
        "status pipeline.yaml",
    ),
    ("status pipeline.yaml --format json", '"runner status" has no option --format', "status pipeline.yaml --json"),
    (
        "up --set subscribers.ship.concurrency 5 pipeline.yaml",
        '"5" is not a path',
        "up --set subscribers.ship.concurrency=5 pipeline.yaml",
    ),
    ("up pipeline.yaml --exclude ship", '"runner up" has no option --exclude', "up pipeline.yaml --except ship"),
    ("up pipeline.yaml --env prod", '"runner up" has no option --env', "up pipeline.yaml --overlay prod.yaml"),
    (
        "dead replay pipeline.yaml --dry",
        '"runner dead replay" has no option --dry',
        "dead replay pipeline.yaml --dry-run",
    ),
    (
        "call pipeline.yaml order_queue 1 --wait-for 9s",
        '"runner call" has no option --wait-for',
        "call pipeline.yaml order_queue 1 --timeout 9s",
    ),
    ("test . -k paid", '"runner test" has no option -k', "test . --only paid"),
    ("test --watch-mode", '"runner test" has no option --watch-mode', "test --watch ."),
    (
        "import pipeline.yaml m.jsonl",
        '"pipeline.yaml" is a file, not a command',
        "import messages m.jsonl pipeline.yaml",
    ),
    ("new project shop", '"runner" has no command "new"', "init shop"),
    (
        "publish pipeline.yaml order_queue number=1 article=lamp",
        "the payload number=1 article=lamp is in several pieces",
        """publish pipeline.yaml order_queue '{"number": 1, "article": "lamp"}'""",
    ),
    ("up --timeout 9s pipeline.yaml", '"runner up" has no option --timeout', "up pipeline.yaml"),
    ("dev pipeline.yaml --broker memory", '"runner dev" has no option --broker', "dev pipeline.yaml"),
    ("apply --yes pipeline.yaml", '"runner apply" has no option --yes', "apply pipeline.yaml"),
    ("validate --dry-run pipeline.yaml", '"runner validate" has no option --dry-run', "validate pipeline.yaml"),
    ("validate pipeline.yaml -W", '"runner validate" has no option -W', "validate pipeline.yaml --strict"),
    ("dead replay pipeline.yaml --all", '"runner dead replay" has no option --all', "dead replay pipeline.yaml"),
    ("dead replay 4f1c22aa", '"4f1c22aa" is not a path', "dead replay pipeline.yaml --id 4f1c22aa"),
    (
        "launch pipeline.yaml --once",
        '"runner" has no command "launch"; "runner up" has no option --once',
        "up pipeline.yaml --until-idle",
    ),
    ("up shop", '"shop" is a name in pipeline.yaml, not a path', "up pipeline.yaml"),
    ("list subscribers pipeline.yaml", '"runner" has no command "list"', "status pipeline.yaml"),
    ("config show pipeline.yaml", "runner config takes one path", "config pipeline.yaml"),
    ("test paid.test.yaml::early", '"paid.test.yaml::early" is not a path', "test paid.test.yaml --only early"),
    (
        "graph pipeline.yaml -o flow.png",
        '"runner graph" has no option -o',
        "graph pipeline.yaml --format svg > flow.svg",
    ),
    (
        "publish pipeline.yaml --to order_queue 1",
        '"runner publish" has no option --to',
        "publish pipeline.yaml order_queue 1",
    ),
    (
        "dead drop --queue order_queue pipeline.yaml --all",
        '"runner dead drop" has no option --queue',
        "dead drop pipeline.yaml order_queue --all",
    ),
    (
        "publish pipeline.yaml order_queue --json '{\"id\": 1}'",
        '"runner publish" has no option --json',
        "publish pipeline.yaml order_queue '{\"id\": 1}'",
    ),
    (
        "up pipeline.yaml --drain-timeout 9s",
        '"runner up" has no option --drain-timeout',
        "up pipeline.yaml --set shutdown.grace=9s",
    ),
    (
        "status pipeline.yaml --refresh 2s",
        '"runner status" has no option --refresh',
        "status pipeline.yaml --interval 2s",
    ),
    ("init shop --template basic", '"runner init" has no option --template', "init shop"),
    ("dev pipeline.yaml --watch", '"runner dev" has no option --watch', "dev pipeline.yaml"),
    (
        "export messages pipeline.yaml -o m.jsonl",
        '"runner export messages" has no option -o',
        "export messages pipeline.yaml --output m.jsonl",
    ),
    ("import pipeline.yaml", '"pipeline.yaml" is a file, not a command', "import messages FILE pipeline.yaml"),
    ("up pipeline.yaml --reload", '"runner up" has no option --reload', "up pipeline.yaml --watch"),
    ("-V", '"runner" has no option -V', "--version"),
    ("up pipeline.yaml --no-watch", '"runner up" has no option --no-watch', "up pipeline.yaml"),
    ("explain --code unknown-key", '"runner explain" has no option --code', "explain unknown-key"),
]


@pytest.mark.parametrize(("line", "message", "meant"), REWRITTEN, ids=[line for line, *_ in REWRITTEN])
def test_the_help_is_the_command_line_that_is_meant(
    line: str, message: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is parsed without an error, so that obeying it once is enough."""
    Path(".env").write_text("A=1\n")
    Path("orders.jsonl").write_text("1\n")
    code, said, help_ = run(line, monkeypatch, capsys)
    assert (code, said) == (2, message)
    assert help_.endswith(f": runner {meant}")
    if not meant.endswith(("--version", "--help")):
        parsed(re.split(r" > |; | \(", meant)[0])  # what follows is the shell's, or another way


SAID = [
    (
        "up pipeline.yaml --worker=max",
        '"runner up" has no option --worker',
        f"for one on each core of this machine, write: runner up pipeline.yaml --workers {os.cpu_count()}",
    ),
    (
        "publish pipeline.yaml order_queue 1 --delay soon",
        '--delay: "soon" is not a duration',
        'write: runner publish pipeline.yaml order_queue 1 --delay 30s (an example, as "soon" is no duration)',
    ),
    (
        "up pipeline.yaml --scale ship=3",
        '"runner up" has no option --scale',
        "write: runner up pipeline.yaml --set subscribers.ship.concurrency=3",
    ),
    (
        "schema pipeline.yaml",
        "runner schema takes no path: it prints the schema of pipeline files",
        "for the schemas of payloads, write: runner export asyncapi pipeline.yaml",
    ),
    (
        "dead replay pipeline.yaml all",
        '"all" is not a queue',
        "write: runner dead replay pipeline.yaml; without a name it is all of them",
    ),
    (
        "pause pipeline.yaml ship --for 30m",
        '"runner pause" has no option --for',
        "leave it out: runner pause pipeline.yaml ship; a pause lasts until `runner resume` ends it",
    ),
    (
        "up pipeline.yaml -d",
        '"runner up" has no option -d',
        "leave it out: runner up pipeline.yaml, and let a service manager run it: "
        "`runner export systemd` writes a unit",
    ),
    ("help stat", '"runner" has no command "stat"', "write: runner help status"),
    ("stop", '"runner" has no command "stop"', "stop `runner up` with Ctrl-C, or send it SIGTERM"),
    (
        "--log-level debug",
        '"runner" has no option --log-level',
        "options come after the command, as in `runner up --log-level …`",
    ),
    (
        "restart ship",
        '"runner" has no command "restart"',
        "stop `runner up` with Ctrl-C, or send it SIGTERM, and start it again: runner up pipeline.yaml",
    ),
    (
        "dead pipeline.yaml --broker amqp://ann:secret@rabbit",
        '"pipeline.yaml" is a file, not a command',
        "write: runner dead list pipeline.yaml --broker … (… is the URL as you wrote it)",
    ),
    (
        "up pipeline.yaml --http 127.0.0.1:99999",
        "--http: the port 99999 is too large",
        "write: runner up pipeline.yaml --http 127.0.0.1:8080",
    ),
    (
        "up pipeline.yaml --http 99999",
        "--http: the port 99999 is too large",
        "write: runner up pipeline.yaml --http 127.0.0.1:8080, or --http 0.0.0.0:8080 for all",
    ),
    (
        "up pipeline.yaml --http 8080",
        '--http: "8080" is not HOST:PORT',
        "write: runner up pipeline.yaml --http 127.0.0.1:8080, or --http 0.0.0.0:8080 for all",
    ),
    (
        "up pipeline.yaml --http http://localhost:8080/",
        '--http: "http://localhost:8080/" is not HOST:PORT',
        "write: runner up pipeline.yaml --http localhost:8080",
    ),
    (
        "up pipeline.yaml --http :8080",
        '--http: ":8080" is not HOST:PORT',
        "write: runner up pipeline.yaml --http 127.0.0.1:8080",
    ),
    (
        "up pipeline.yaml --log-format text",
        '--log-format: "text" is none of: auto, console, json',
        "write: runner up pipeline.yaml --log-format console",
    ),
    (
        "dead list --id --json pipeline.yaml",
        "--id needs a value",
        "write: runner dead list --id ID --json pipeline.yaml",
    ),
    ("dead show pipeline.yaml 4f1c", '"4f1c" is not a queue', "write: runner dead show pipeline.yaml --id 4f1c"),
    (
        "diff main pipeline.yaml",
        'OLD: there is no file or folder "main"',
        "for a revision of git, write: git worktree add ../main main; runner diff ../main/pipeline.yaml pipeline.yaml",
    ),
    (
        "publish pipeline.yaml order_queue 1 --expires 0",
        "--expires: must be at least 1ms",
        "leave it out: runner publish pipeline.yaml order_queue 1",
    ),
    (
        "publish pipeline.yaml order_queue '{\"id\": 1}' '{\"id\": 2}'",
        "there are several payloads",
        "write each on a line of a file, and: runner publish pipeline.yaml order_queue --lines < FILE",
    ),
    (
        "up pipeline.yaml --broker ./shop.q",
        "--broker: a broker's URL starts with amqp://, amqps:// or file:",
        "for a broker in a file, write: runner up pipeline.yaml --broker file:./shop.q",
    ),
    (
        "up pipeline.yaml --http localhost",
        '--http: "localhost" is not HOST:PORT',
        "write: runner up pipeline.yaml --http localhost:8080",
    ),
    (
        "up pipeline.yaml --broker in-memory",
        "--broker: a broker's URL starts with amqp://, amqps:// or file:",
        "write: runner up pipeline.yaml --broker memory",
    ),
    (
        "up pipeline.yaml --broker localhost:5672",
        "--broker: a broker's URL starts with amqp://, amqps:// or file:",
        "write: runner up pipeline.yaml --broker amqp://localhost:5672",
    ),
    (
        "up pipeline.yaml --broker http://rabbit:15672",
        "--broker: a broker's URL starts with amqp://, amqps:// or file:",
        "write: runner up pipeline.yaml --broker 'amqp://user:***@rabbit:5672', with your user and password",
    ),
    (
        "up pipeline.yaml --http 8080x",
        '--http: "8080x" is not HOST:PORT',
        "write: runner up pipeline.yaml --http 127.0.0.1:8080",
    ),
    (
        "up pipeline.yaml --log-level debgu",
        '--log-level: "debgu" is none of: debug, info, warning, error',
        "write: runner up pipeline.yaml --log-level debug",
    ),
    (
        "graph pipeline.yaml --format png",
        '--format: "png" is none of: text, mermaid, dot, svg, json',
        "write: runner graph pipeline.yaml --format svg",
    ),
    (
        "graph pipeline.yaml --format tikz",
        '--format: "tikz" is none of: text, mermaid, dot, svg, json',
        "write one of: text, mermaid, dot, svg, json",
    ),
    (
        "up pipeline.yaml --workers 0",
        "--workers: must be a whole number from 1 on, not 0",
        "write: runner up pipeline.yaml --workers 1",
    ),
    ("up pipeline.yaml --log-level", "--log-level needs a value", "write: runner up pipeline.yaml --log-level debug"),
    (
        "up pipeline.yaml --env-file pipelin.yaml",
        '--env-file: there is no file "pipelin.yaml"',
        "write: runner up pipeline.yaml --overlay pipeline.yaml",
    ),
    (
        "publish pipeline.yaml order_queue 1 --header tenant:a",
        '--header: "tenant:a" is not NAME=VALUE',
        "write: runner publish pipeline.yaml order_queue 1 --header tenant=a",
    ),
    (
        "publish pipeline.yaml order_queue 1 --header tenant",
        '--header: "tenant" is not NAME=VALUE',
        "write: runner publish pipeline.yaml order_queue 1 --header tenant=VALUE",
    ),
    (
        "publish pipeline.yaml order_queue 1 --count 5",
        '"runner publish" has no option --count',
        "to publish several messages, write each on a line of a file, and --lines < FILE",
    ),
    (
        "up pipeline.yaml --broker localhost:15672",
        "--broker: a broker's URL starts with amqp://, amqps:// or file:",
        "write: runner up pipeline.yaml --broker amqp://localhost:5672",
    ),
    (
        "publish pipeline.yaml order_queue @ordr.json",
        "PAYLOAD: cannot read ordr.json: no such file or directory",
        "correct the path after the @",
    ),
    (
        "up pipeline.yaml --broker ampq://localhost",
        "--broker: a broker's URL starts with amqp://, amqps:// or file:",
        "write: runner up pipeline.yaml --broker amqp://localhost",
    ),
    (
        "publish pipeline.yaml",
        "runner publish needs the name of a queue or an event",
        """write: runner publish pipeline.yaml order_queue '{"id": 1}' (there are: order_queue, order.paid)""",
    ),
    (
        "publish pipeline.yaml order_queue {id: 1}",
        "the payload {id: 1} is in several pieces",
        """write it in single quotes: runner publish pipeline.yaml order_queue '{"id": 1}'""",
    ),
    (  # as a shell expands {"id":1,"to":"lamp"}
        "publish pipeline.yaml order_queue id:1 to:lamp --wait 1s",
        "the payload id:1 to:lamp is in several pieces",
        """write it in single quotes: runner publish pipeline.yaml order_queue '{"id": 1, "to": "lamp"}' --wait 1s""",
    ),
    (
        "publish pipeline.yaml order_queue {at: 12:30}",
        "the payload {at: 12:30} is in several pieces",
        "write it in single quotes, in one piece: the shell has split it and removed its double quotes",
    ),
    (
        """publish pipeline.yaml order_queue "{'id': 1}" """,
        "PAYLOAD: it is not JSON: other quotes than double quotes (column 2)",
        """write: runner publish pipeline.yaml order_queue '{"id": 1}'""",
    ),
    (
        "publish pipeline.yaml order_queue order.json",
        'PAYLOAD: "order.json" is the name of a file',
        "write: runner publish pipeline.yaml order_queue @order.json "
        "(text that ends like a file's name comes by standard input)",
    ),
    (
        "publish pipeline.yaml order_queue 1 --rate 100",
        '--rate: "100" is not a rate',
        "write: runner publish pipeline.yaml order_queue 1 --rate 100/s",
    ),
    (
        "publish pipeline.yaml order_queue 1 --delay 30",
        '--delay: "30" is not a duration',
        "for seconds, write: runner publish pipeline.yaml order_queue 1 --delay 30s (or 30m, 30h, 30d)",
    ),
    (
        "publish pipeline.yaml order_queue 1 --priority high",
        "--priority: must be a whole number, not high",
        'write: runner publish pipeline.yaml order_queue 1 --priority 1 (an example, as "high" is no number)',
    ),
    (
        "call pipeline.yaml order_queue 1 --timeout 5",
        '--timeout: "5" is not a duration',
        "for seconds, write: runner call pipeline.yaml order_queue 1 --timeout 5s (or 5m, 5h, 5d)",
    ),
    (
        "dead list pipeline.yaml --older-than '1 hour'",
        '--older-than: "1 hour" is not a duration',
        "write: runner dead list pipeline.yaml --older-than 1h",
    ),
    (
        "publish pipeline.yaml order_queue 1 --ttl 60",
        '"runner publish" has no option --ttl',
        "for seconds, write: runner publish pipeline.yaml order_queue 1 --expires 60s (or 60m, 60h, 60d)",
    ),
    (
        "publish pipeline.yaml order_queue 1 --header 'tenant: a b'",
        '--header: "tenant: a b" is not NAME=VALUE',
        "write: runner publish pipeline.yaml order_queue 1 --header 'tenant=a b'",
    ),
    (
        "up pipeline.yaml --broker amqp://localhost --port 5673",
        '"runner up" has no option --port',
        "for the broker, write it in the URL: --broker amqp://HOST:5673; for HTTP, --http 127.0.0.1:5673",
    ),
    (
        "diff pipeline.yaml --broker amqp://localhost",
        '"runner diff" has no option --broker',
        "leave it out: runner diff pipeline.yaml; then for the last commit, write: git worktree add ../HEAD HEAD; "
        "runner diff ../HEAD/pipeline.yaml pipeline.yaml",
    ),
    ("test . --fail-under 0.8", "--fail-under: 0.8 is less than one percent", "write: runner test . --fail-under 80"),
    (
        "status pipeline.yaml --interval 0.01s",
        "--interval: must be at least 100ms",
        "write: runner status pipeline.yaml --interval 100ms",
    ),
    (
        "status pipeline.yaml --management 15672",
        '--management: "15672" is not the URL of a management API',
        "write: runner status pipeline.yaml --management http://localhost:15672",
    ),
    (
        "up pipeline.yaml --env-file pipeline.yaml",
        '--env-file: "pipeline.yaml" is no file of NAME=value lines',
        "write: runner up pipeline.yaml --overlay pipeline.yaml",
    ),
    (
        "status pipeline.yaml --management localhost:15672",
        '--management: "localhost:15672" is not the URL of a management API',
        "write: runner status pipeline.yaml --management http://localhost:15672",
    ),
    (
        "status pipeline.yaml --management amqp://ann:secret@rabbit:5672",
        '--management: "amqp://ann:***@rabbit:5672" is not the URL of a management API',
        "write: runner status pipeline.yaml --management http://rabbit:15672",
    ),
    (
        "status pipeline.yaml --broker amqp://rabbit",
        "--broker: the broker's URL has no user and password before its host",
        "write: runner status pipeline.yaml --broker 'amqp://user:***@rabbit', with your user and password",
    ),
    (
        "status pipeline.yaml --broker https://rabbit:15671/",
        "--broker: a broker's URL starts with amqp://, amqps:// or file:",
        "write: runner status pipeline.yaml --broker 'amqps://user:***@rabbit:5671', with your user and password",
    ),
    (
        "config pipeline.yaml pipeline.yaml",
        "runner config has more arguments than it takes",
        "its usage: runner config [OPTIONS] PATH",
    ),
]


WORDS = [row[2].split() for row in read_table("runner.cli", "usage.txt", 4) if row[0] == "option"]
OPTIONS = sorted({word for words in WORDS for word in words})
LINES = [line for _, line in EXAMPLES if not set(line) & set("<>|;") and "pipelines" not in line]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(LINES),
    st.sampled_from(OPTIONS),
    st.sampled_from(["", "7", "7s", "seven", "a b", "k=v", "amqp://localhost", "x.json"]),
    st.booleans(),
    st.integers(1, 6),
)
def test_every_command_line_of_a_help_can_be_run_and_loses_no_value(
    example: str, option: str, value: str, is_one: bool, place: int
) -> None:
    """Options of other programs at any place of the examples: a value is kept, or the help says that it is left out."""
    arguments = shlex.split(example)[1:]
    words = [f"{option}={value}"] if is_one and value else [option, *([value] if value else [])]
    arguments[place:place] = words
    error = rewrite.error_of(arguments)
    if error is None:
        return
    message, help_ = usage.explain_usage(error, arguments)
    before, is_line, line = help_.partition(": runner ")
    if not is_line or "usage" in before or "; then " in line or "`" in line:
        return
    line = re.split(" > |; | \\(|, (?=with |without |or )", line)[0]
    assert rewrite.error_of(shlex.split(line)) is None, help_
    is_said = (
        "leave it out" in before or ", without --" in help_ or "to look" in before or "does not take a value" in message
    )
    kept = value[:1] if value[:1].isdecimal() else value.rpartition("/")[2]  # not the unit, nor the scheme
    assert is_said or not value or kept in help_, (message, help_)


@pytest.mark.parametrize(("line", "message", "help_"), SAID, ids=[line for line, *_ in SAID])
def test_what_is_said(
    line: str, message: str, help_: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line, monkeypatch, capsys) == (2, message, help_)


def test_a_payload_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed standard input, and a device that never ends."""
    said = run("publish pipeline.yaml order_queue @/dev/zero", monkeypatch, capsys)
    assert said == (2, "PAYLOAD: cannot read /dev/zero: it is not a file", "correct the path after the @")
    monkeypatch.setattr(sys, "stdin", None)
    said = run("publish pipeline.yaml order_queue", monkeypatch, capsys)
    assert said == (2, "PAYLOAD: standard input is closed", "write the payload, or @FILE")


def test_a_wrong_value_of_a_variable_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option was not written. A password in the value is not shown."""
    monkeypatch.setenv("RUNNER_BROKER", "http://user:hunter2@host")
    _, message, help_ = run("up pipeline.yaml", monkeypatch, capsys)
    assert message == "RUNNER_BROKER: a broker's URL starts with amqp://, amqps:// or file:"
    monkeypatch.delenv("RUNNER_BROKER")
    monkeypatch.setenv("RUNNER_UP_WORKERS", "many")
    assert run("up pipeline.yaml", monkeypatch, capsys)[1].startswith("RUNNER_UP_WORKERS: must be a whole number")
    assert "hunter2" not in message + help_
    monkeypatch.setenv("RUNNER_UP_WORKERS", "2")
    assert run("up pipeline.yaml --watch", monkeypatch, capsys)[2] == "leave --workers out: a variable sets it"


def test_a_misspelt_variable_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It would have no effect otherwise. Variables of other programs are left alone."""
    for name in ("RUNNER_BROKR", "RUNNER_UP_WORKRS", "RUNNER_OS", "RUNNER_TEMP", "RUNNER_DEV_LOG_LEVEL"):
        monkeypatch.setenv(name, "1")
    said = run("up pipeline.yaml --workers 0", monkeypatch, capsys)[1]
    assert said.splitlines()[:2] == [
        "warning: the variable RUNNER_BROKR is not read; did you mean RUNNER_BROKER?",
        "warning: the variable RUNNER_UP_WORKRS is not read; did you mean RUNNER_UP_WORKERS?",
    ]
    assert said.count("warning") == 2


def test_a_variable_is_named_after_its_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/reference/commands.md says, whatever the parameter is called in Python."""
    monkeypatch.setenv("RUNNER_GRAPH_FORMAT", "png")
    assert run("graph pipeline.yaml", monkeypatch, capsys)[1].startswith(
        'RUNNER_GRAPH_FORMAT: "png" is none of: text, '
    )


def test_a_folder_without_a_pipeline_is_shown_the_way_to_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pipeline.yaml").unlink()
    assert run("up", monkeypatch, capsys)[2] == "write: runner up PATH; `runner init` starts a project"


def test_help_and_version_are_verbs_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As in other programs."""
    texts = []
    for line in ("help dead list", "dead list --help", "version", "--version"):
        monkeypatch.setattr(sys, "argv", ["runner", *line.split()])
        assert package._run() == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2] == texts[3]


@pytest.mark.parametrize("line", [line for _, line in EXAMPLES])
def test_the_examples_of_the_help_are_right(line: str, project: Path) -> None:
    """Each is parsed as it stands."""
    (project / "order.json").write_text("{}")
    arguments = shlex.split(line.partition(" < ")[0].partition(" > ")[0])[1:]
    parsed(shlex.join(arguments))


def test_every_verb_is_in_the_help_and_the_examples_are_of_verbs() -> None:
    context = click.Context(cli, info_name="runner")
    shown = cli.get_help(context)
    for name in cli.list_commands(context):
        assert f"\n  {name} " in shown
        assert name == "export" or any(key.partition(" ")[0] == name for key, _ in EXAMPLES)
        assert isinstance(cli.get_command(context, name), click.Group | Verb), f"{name} does not show its examples"
    assert {key.partition(" ")[0] for key, _ in EXAMPLES} <= set(cli.list_commands(context))


def test_completion_knows_the_names_in_the_file_and_the_codes() -> None:
    """What `runner explain` and a NAME can be."""
    publish, explain = (cli.get_command(click.Context(cli), verb) for verb in ("publish", "explain"))
    assert publish is not None
    assert explain is not None
    context = click.Context(publish, info_name="publish")
    context.params = {"path": Path("pipeline.yaml")}
    name = next(item for item in publish.params if item.name == "name")
    assert [item.value for item in name.shell_complete(context, "order")] == ["order_queue", "order.paid"]
    context.params = {"path": Path("nowhere.yaml")}
    assert name.shell_complete(context, "") == []
    codes = explain.params[0].shell_complete(click.Context(explain), "unknown-k")
    assert [item.value for item in codes] == ["unknown-key"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--delay 5", '--delay: "5" is not a duration'),
        ("--delay=-2h", '--delay: "-2h" is not a duration'),
        ("--expires 400d", "--expires: must be a duration from 1ms to 365d, not 400d"),
        ("--priority 300", "--priority: must be a whole number from 0 to 255, not 300"),
        ("--id o-1 --lines", "--id: each line is a message, and needs its own"),
    ],
)
def test_options_of_a_message_that_no_broker_takes(
    options: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rule of `Publish`, before anything is connected."""
    code, message, _ = run(f"publish pipeline.yaml order_queue 1 {options}", monkeypatch, capsys)
    assert (code, message) == (2, text)


def test_the_concurrency_is_that_of_the_subscribers_that_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--only` leaves the other ones out, and so does the help."""
    subscribers = "subscribers: {ship: {from: q, handler: shop:ship}, mail: {from: r, handler: shop:mail}}\n"
    Path("two.yaml").write_text(f"pipeline: two\n{subscribers}")
    for only in ("--only mail", "--only=mail"):
        _, _, help_ = run(f"up two.yaml {only} --concurrency 20", monkeypatch, capsys)
        assert f"up two.yaml {only} --set subscribers.mail.concurrency=20; for" in help_
