"""S1 to S7 and S16 through the real process: hostile files end in problems, quickly, whatever the command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runner.config.loader import load_text
from tests.project import Project

SECRET = "S3CR3T-CANARY"

BOMB = "\n".join(
    [
        "version: 1",
        "x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]",
        *(f"x-a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)),
    ]
)
MERGES = "\n".join(
    [
        "version: 1",
        f"x-m0: &m0 {{{', '.join(f'k{n}: 1' for n in range(10))}}}",
        *(f"x-m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}" for n in range(1, 8)),
    ]
)
HOSTILE = {
    "alias-bomb": BOMB,
    "merge-bomb": MERGES,
    "cycle": "version: 1\nx-a: &a [*a]\n",
    "deep": "version: 1\nx-a: " + "[" * 1000 + "]" * 1000,
    "deep-maps": "version: 1\nx-a: " + "{a: " * 5000 + "}" * 5000,
    "deep-blocks": "version: 1\nx-a:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, 900)),
    "many": "version: 1\nx-a: [" + "a," * 20_000 + "]",
    "large": "version: 1\n# " + "x" * 1_100_000,
    "twice": "version: 1\nqueues: {a: }\nqueues: {b: }\n",
    "python-object": "version: 1\nx-a: !!python/object/apply:os.system ['touch sprung']\n",
    "python-name": "version: 1\nx-a: !!python/name:os.system\n",
    "python-module": "version: 1\nx-a: !!python/module:trap\n",
    "tag": "version: 1\nx-a: !include /etc/passwd\n",
    "binary": "version: 1\nx-a: !!binary AAAA\n",
    "two": "version: 1\n---\nversion: 1\n",
    "nul": "version: 1\nname: 'a\0b'\n",
    "surrogate": 'version: 1\nname: "\\ud800"\n',
    "key-of-a-list": "version: 1\n? [a]\n: 1\n",
    "number": "version: 1\nsubscribers: {a: {concurrency: " + "9" * 5000 + "}}\n",
    "date": "version: 1\nname: 2020-13-99\nqueues: 1\n",
}


@pytest.mark.parametrize("arguments", [("validate", "--format", "json"), ("up",), ("graph",)], ids=" ".join)
async def test_hostile_files_end_in_problems(memory_project: Project, arguments: tuple[str, ...]) -> None:
    """Every one of them is told; no traceback, nothing is run, and nothing takes long."""
    (memory_project.folder / "trap.py").write_text("open('sprung', 'w')\n")
    for name, text in HOSTILE.items():
        path = memory_project.folder / "all" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    verb, *rest = arguments
    async with memory_project.run(verb, "all", *rest) as runner:
        assert await runner.wait(20) == 78, runner.stderr
    assert "Traceback" not in runner.stderr
    assert not (memory_project.folder / "sprung").exists()
    said = runner.stdout + runner.stderr
    assert {name for name in HOSTILE if f"{name}.yaml" not in said} == set()
    if "json" in arguments:
        wrong = {Path(problem["file"]).stem for problem in json.loads(runner.stdout) if problem["severity"] == "error"}
        assert wrong == HOSTILE.keys()


ESCAPES = ("../secret.yaml", "parts/../../secret.yaml", "ABSOLUTE", "link.yaml", "parts/secret.yaml", "file://ABSOLUTE")


@pytest.mark.parametrize("verb", ["validate", "config", "up"])
async def test_includes_stay_in_the_projects_folder(memory_project: Project, verb: str) -> None:
    """By `..`, an absolute path, a link, a folder that is a link, a URL: refused with the name alone, and unread."""
    outside = memory_project.folder / "secret.yaml"
    outside.write_text(f"queues: {{{SECRET}: {{}}}}\n{SECRET}")
    inside = memory_project.folder / "inside"
    inside.mkdir()
    (inside / "link.yaml").symlink_to(outside)
    (inside / "parts").symlink_to(memory_project.folder)
    os.utime(outside, (0, 0))
    names = [name.replace("ABSOLUTE", str(outside)) for name in ESCAPES]
    memory_project.pipeline(f"version: 1\nqueues: {{a: }}\ninclude: {json.dumps(names)}\n", file="inside/a.yaml")
    runner = await memory_project.run_to_end(verb, "inside/a.yaml", code=78)
    said = runner.stdout + runner.stderr
    assert SECRET not in said
    assert said.count("error[include-outside]") + said.count("error[bad-include]") == len(ESCAPES)


async def test_a_variable_cannot_write_yaml(memory_project: Project) -> None:
    """What stands in a variable is one text, whatever it looks like; it is not read for variables again."""
    memory_project.pipeline('version: 1\nname: UNIQUE\ndescription: "${V}"\nqueues: {a: }\n')
    value = 'x"\nbroker: amqp://u:p@evil.example\nqueues: {stolen: }\n# ${HOME} *alias !!tag'
    runner = await memory_project.run_to_end("config", memory_project.file, env={"V": value})
    assert "\n  stolen" not in runner.stdout
    assert "\nbroker: amqp" not in runner.stdout
    assert "${HOME}" in runner.stdout.replace("$${", "${")


LONG = "é" * 128
"""128 characters, 256 bytes."""


@pytest.mark.parametrize(
    "name", [LONG, "x" * 256, "amq.mine", "a\\nb", "a\\0b", "a\\e[2J", "a\\u2028b", "a.#", "*", ""]
)
def test_names_that_a_broker_would_refuse_or_read_otherwise_are_refused_here(name: str) -> None:
    """Of queues, events and the literal key of an event: by bytes, not by characters."""
    for text in (
        f'queues: {{"{name}": }}',
        f'events: {{"{name}": }}',
        f'queues: {{a: {{dead_letter: "{name}"}}}}',
        f'queues: {{a: }}\nproducers: {{p: {{file: a, to: "{name}"}}}}',
    ):
        problems = load_text(f"version: 1\n{text}\n", Path("a.yaml"), {}).problems
        assert [problem.code for problem in problems if problem.severity == "error"], text


@pytest.mark.parametrize("key", [LONG, "x" * 256, "a.#", "a.*"])
def test_the_key_of_an_event_is_a_word_and_fits(key: str) -> None:
    """Published under a pattern, an event would be heard by nobody who waits for it."""
    problems = load_text(f'version: 1\nevents: {{e: {{key: "{key}"}}}}\n', Path("a.yaml"), {}).problems
    assert problems
