"""`include`: what is merged, what is refused, and that every problem knows its file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.config import diagnostics, limits
from runner.config.loader import PipelineFile, load
from runner.config.spec import PipelineSpec
from runner.errors import Problem

S = "subscribers: {%s: {from: q, handler: 'a:b', %s}}\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which is the current folder; there are other things beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "outside.yaml").write_text("queues: {S3CR3T: }\n")
    monkeypatch.chdir(folder)
    return folder


def write(**files: str) -> None:
    """Write files; `parts__b` is `parts/b.yaml`."""
    for name, text in files.items():
        path = Path(f"{name.replace('__', '/')}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(environ: dict[str, str] | None = None, /, **files: str) -> PipelineFile:
    """Write files and read the pipeline `a.yaml`."""
    write(**files)
    return load(Path("a.yaml"), environ or {})


def spec(environ: dict[str, str] | None = None, **files: str) -> PipelineSpec:
    loaded = read(environ, **files)
    assert loaded.problems == []
    assert loaded.spec is not None
    return loaded.spec


def places(problems: list[Problem]) -> list[tuple[str, int, int, str, str]]:
    return [(item.file, item.line, item.column, item.code, item.path) for item in problems]


# What is merged


def test_a_pattern_includes_each_file_that_it_matches_in_the_order_of_their_names() -> None:
    """Hidden files and the including file itself are left out, and a file that is included twice is read once."""
    Path("parts/.hidden").mkdir(parents=True)
    Path("parts/.hidden/q3.yaml").write_text("queues: {q3: }\n")
    pipeline = spec(
        a="version: 1\ninclude: ['*.yaml', 'parts/**/q?.yaml', 'parts/q2.yaml']\nqueues: {q: }\n",
        b="queues: {b: }\n",
        parts__q2="queues: {q2: }\n",
        parts__deep__q1="queues: {q1: }\n",
        parts__deep__other="queues: {q: }\n",
    )
    assert list(pipeline.queues) == ["q", "b", "q1", "q2"]


@pytest.mark.parametrize(
    ("pattern", "code", "message"),
    [
        ("parts/*.yaml", "no-such-file", 'no file matches "parts/*.yaml"'),
        ("../*.yaml", "include-outside", 'cannot include "..": outside of the project\'s folder'),
        ("/etc/*", "include-outside", 'cannot include "/etc": outside of the project\'s folder'),
        ("*/../../*.yaml", "bad-include", '"*/../../*.yaml" is not a pattern of files'),
        ("**.yaml", "bad-include", '"**.yaml" is not a pattern of files'),
        ("linked/*.yaml", "include-outside", 'cannot include "linked": outside of the project\'s folder'),
        ("l*/outside.yaml", "include-outside", "outside of the project's folder"),
    ],
)
def test_a_pattern_that_matches_nothing_or_leaves_the_project_is_a_problem(
    pattern: str, code: str, message: str
) -> None:
    Path("linked").symlink_to("..")
    (problem,) = read(a=f"version: 1\ninclude: '{pattern}'\nqueues: {{q: }}\n").problems
    assert (problem.code, problem.line) == (code, 2)
    assert message in problem.message


def test_sections_are_merged() -> None:
    """The file's own items come first, then those of the files it includes, in their order."""
    pipeline = spec(
        a="version: 1\ninclude: [b.yaml, parts/c.yaml]\nqueues: {q: }\n" + S % ("s", ""),
        b="version: 1\nqueues: {r: {type: classic}}\nevents: {e: 'm:T'}\nexchanges: {x: fanout}\n" + S % ("t", ""),
        parts__c="include: ../d.yaml\nproducers: {p: {handler: 'a:b', to: q}}\nresources: {db: 'a:b'}\nx-y: 1\n",
        d="queues:\n  u:\n" + S % ("v", ""),
    )
    assert list(pipeline.queues) == ["q", "r", "u"]
    assert list(pipeline.subscribers) == ["s", "t", "v"]
    assert (list(pipeline.events), list(pipeline.exchanges)) == (["e"], ["x"])
    assert (list(pipeline.producers), list(pipeline.resources)) == (["p"], ["db"])
    assert pipeline.queues["r"].type == "classic"
    assert pipeline.include == ("b.yaml", "parts/c.yaml")


def test_a_file_is_read_once() -> None:
    """Two parts may share a third, and a name in the list may stand there twice."""
    loaded = read(
        a="version: 1\ninclude: [b.yaml, c.yaml, ./b.yaml]\n",
        b="include: d.yaml\n",
        c="include: d.yaml\n",
        d="queues: {q: }\n",
    )
    assert loaded.problems == []
    assert loaded.files == tuple(map(Path, ("a.yaml", "b.yaml", "d.yaml", "c.yaml")))


def test_empty_sections_on_either_side_change_nothing() -> None:
    """Also one that an alias shares with another section."""
    pipeline = spec(
        a="version: 1\ninclude: b.yaml\nqueues:\nproducers:\nx-e: &e {}\nevents: *e\nexchanges: *e\n",
        b="queues: {q: }\nevents: {e: }\nsubscribers:\n",
    )
    assert (list(pipeline.queues), list(pipeline.events), list(pipeline.exchanges)) == (["q"], ["e"], [])


def test_defaults_are_for_the_items_of_their_own_file() -> None:
    """Neither of those that include it, nor of those it includes."""
    pipeline = spec(
        a="version: 1\ninclude: b.yaml\ndefaults: {subscriber: {concurrency: 1}}\nqueues: {q: }\n" + S % ("s", ""),
        b="include: c.yaml\ndefaults: {subscriber: {concurrency: 2}, queue: {max_length: 5}}\n" + S % ("t", ""),
        c=S % ("u", ""),
    )
    assert [item.concurrency for item in pipeline.subscribers.values()] == [1, 2, 10]
    assert pipeline.subscribers["t"].queue is None  # it reads a queue, though that is declared elsewhere
    assert pipeline.queues["q"].max_length is None


def test_paths_are_relative_to_the_file_they_stand_in() -> None:
    """In the spec they are relative to the pipeline's own file."""
    pipeline = spec(
        {"F": "x.csv"},
        a="version: 1\ninclude: [deep/b.yaml, deep/d.yaml]\npython_path: src\nproducers: {p: {file: x.jsonl, to: q}}\n",
        deep__b=(
            "include: ../c.yaml\npython_path: [lib, /abs]\nx-o: &o {file: y.jsonl, to: q}\n"
            "producers: {r: *o, s: *o, t: {file: /abs/x, to: q}, u: {file: '-', to: q}, v: {file: '${F}', to: q}}\n"
        ),
        c="python_path: '.'\nproducers: {w: {file: z.jsonl, to: q}}\nstores: {c: 'sqlite:c.db'}\n",
        deep__d="stores: {d: 'sqlite:d.db', e: 'sqlite:/abs/e.db', f: 'redis://host/0'}\n",
    )
    assert [item.file for item in pipeline.producers.values()] == [
        *("x.jsonl", "deep/y.jsonl", "deep/y.jsonl", "/abs/x", "-", "deep/x.csv", "z.jsonl")
    ]
    assert pipeline.python_path == ("src", "deep/lib", "/abs", ".")
    assert list(pipeline.stores.values()) == ["sqlite:c.db", "sqlite:deep/d.db", "sqlite:/abs/e.db", "redis://host/0"]


def test_variables_and_secret_files_work_in_included_files() -> None:
    """Secret files are relative to the file that names them; names of included files may hold variables."""
    Path("parts").mkdir()
    Path("parts/secret").write_text("s3cret\n")
    loaded = read(
        {"WHICH": "b", "N": "5"},
        a="version: 1\ninclude: ['parts/${WHICH}.yaml']\n",
        parts__b=S % ("s", "concurrency: '${N}', description: '${file:secret}'"),
    )
    assert loaded.spec is not None
    assert loaded.spec.subscribers["s"].concurrency == 5
    assert loaded.spec.subscribers["s"].description == "s3cret"
    assert loaded.interpolated[("subscribers", "s", "description")] == ("file:secret",)


def test_links_inside_the_project_are_followed() -> None:
    """Under the name of the file they lead to; a pipeline that is a link itself has the folder it is linked into."""
    write(real__b="queues: {q: }\n", real__a="version: 1\ninclude: b.yaml\n")
    Path("b.yaml").symlink_to("real/b.yaml")
    Path("a.yaml").symlink_to("real/a.yaml")
    loaded = load(Path("a.yaml"), {})
    assert loaded.problems == []
    assert loaded.files == (Path("a.yaml"), Path("real/b.yaml"))


def test_an_absolute_path_may_lead_into_the_project(project: Path) -> None:
    """It says the same as a relative one."""
    assert list(spec(a=f"version: 1\ninclude: {project}/b.yaml\n", b="queues: {q: }\n").queues) == ["q"]


# Problems have their file


def test_problems_of_every_kind_are_told_where_they_are(project: Path) -> None:
    """Of YAML, of variables, of values, of keys, of defaults: in one run, and in the order of the files."""
    loaded = read(
        a="version: 1\ninclude: [parts/b.yaml, c.yaml]\nownr: x\n",
        parts__b=(
            "version: 2\nqueus: {}\ndefaults: {queue: {typ: classic}}\nqueues:\n  q:\n    max_length: -1\n"
            "  r: {declare: false}\n  r: {}\nsubscribers:\n  s: {from: q, handler: '${NONE}'}\n"
        ),
        c="events: [e]\ninclude: {}\npython_path: 5\nbrokers: {}\n",
    )
    assert places(loaded.problems) == [
        ("a.yaml", 3, 1, "unknown-key", ""),
        ("parts/b.yaml", 1, 10, "bad-version", "version"),
        ("parts/b.yaml", 2, 1, "unknown-key", ""),
        ("parts/b.yaml", 3, 20, "unknown-key", "defaults.queue"),
        ("parts/b.yaml", 6, 17, "out-of-range", "queues.q.max_length"),
        ("parts/b.yaml", 8, 3, "duplicate-key", "queues"),
        ("parts/b.yaml", 10, 26, "unset-variable", "subscribers.s.handler"),
        ("c.yaml", 1, 9, "wrong-type", "events"),
        ("c.yaml", 2, 10, "wrong-type", "include"),
        ("c.yaml", 3, 14, "wrong-type", "python_path"),
        ("c.yaml", 4, 1, "reserved-key", ""),
    ]


def test_the_excerpt_is_of_the_included_file() -> None:
    """To the character."""
    loaded = read(a="version: 1\ninclude: parts/b.yaml\n", parts__b="queues:\n  q: {typ: classic}\n")
    assert diagnostics.full(loaded.problems) == (
        'error[unknown-key]: queues.q: unknown key "typ"\n'
        " --> parts/b.yaml:2:7\n"
        "  |\n"
        "2 |   q: {typ: classic}\n"
        "  |       ^^^\n"
        '  = help: did you mean "type"?\n'
    )


def test_other_rooms_get_the_right_file_too() -> None:
    """For values, parts of values in quotes, and what is only written nearby."""
    loaded = read(
        a="version: 1\ninclude: b.yaml\nqueues: {q: }\n",
        b='# a comment\nsubscribers:\n  s:\n    from: q\n    handler: "handlers.a:run"\n',
    )
    problem = loaded.problem("x", ("subscribers", "s", "handler"), "m", offset=11, length=3)
    assert (problem.file, problem.line, problem.column) == ("b.yaml", 5, 26)
    problem = loaded.problem("x", ("subscribers", "s", "timeout"), "m")
    assert (problem.file, problem.line, problem.column) == ("b.yaml", 3, 3)
    problem = loaded.problem("x", ("queues", "q"), "m")
    assert (problem.file, problem.line, problem.column) == ("a.yaml", 3, 10)


def test_an_absolute_pipeline_has_absolute_problems(project: Path) -> None:
    """As with one file."""
    write(a="version: 1\ninclude: b.yaml\n", b="queues: 5\n")
    assert [problem.file for problem in load(project / "a.yaml", {}).problems] == [str(project / "b.yaml")]


def test_a_name_is_defined_once() -> None:
    """The problem is at the second place, and names the first one."""
    loaded = read(
        a="version: 1\ninclude: [b.yaml, c.yaml]\nqueues:\n  q:\n",
        b="queues: {q: , r: }\nresources: {db: 'a:b'}\n",
        c="resources:\n  db: a:b\n",
    )
    assert [(item.file, item.line, item.code, item.message) for item in loaded.problems] == [
        ("b.yaml", 1, "duplicate-name", 'the queue "q" is already defined in a.yaml:4'),
        ("c.yaml", 2, "duplicate-name", 'the resource "db" is already defined in b.yaml:2'),
    ]
    assert loaded.problems[0].path == "queues.q"


@pytest.mark.parametrize(
    "key", ["name: x", "description: x", "owner: x", "broker: memory", "logging: {}", "shutdown: ", "redact: [a]"]
)
def test_what_is_said_of_the_whole_pipeline_stands_in_its_own_file(key: str) -> None:
    """Two files could else contradict each other."""
    (problem,) = read(a="version: 1\ninclude: b.yaml\n", b=f"{key}\nqueues: {{q: }}\n").problems
    assert (problem.file, problem.line, problem.column, problem.code) == ("b.yaml", 1, 1, "root-only")
    assert problem.message == f'"{key.partition(":")[0]}" is allowed only in the pipeline\'s own file'
    assert problem.help == 'move it to "a.yaml"'


# What cannot be included


def refused(name: str) -> Problem:
    """Return the one problem of a pipeline that includes a name."""
    loaded = read(a=f"version: 1\ninclude:\n  - {name}\n")
    (problem,) = loaded.problems
    assert (problem.file, problem.line, problem.column, problem.path) == ("a.yaml", 3, 5, "include.0")
    assert loaded.files == (Path("a.yaml"),)
    assert "S3CR3T" not in diagnostics.full([problem])
    return problem


@pytest.mark.parametrize("name", ["../outside.yaml", "parts/../../outside.yaml", "/etc/passwd", "..", "/", "link.yaml"])
def test_nothing_outside_of_the_project_is_read(name: str) -> None:
    """Neither by `..`, nor by an absolute path, nor by a link; whether it exists is not told either."""
    Path("link.yaml").symlink_to("../outside.yaml")
    problem = refused(name)
    assert (problem.code, problem.message) == (
        "include-outside",
        f'cannot include "{name}": outside of the project\'s folder',
    )
    assert problem.help == (
        "put this pipeline into a folder above the included file, or move that file below this one's folder"
    )


def test_links_to_folders_outside_lead_nowhere(tmp_path: Path) -> None:
    """The way in is judged by where it ends."""
    Path("parts").symlink_to(tmp_path)
    assert refused("parts/outside.yaml").code == "include-outside"
    assert refused("parts/no-such.yaml").code == "include-outside"


def test_an_included_file_cannot_go_further_than_the_pipeline() -> None:
    """`..` is allowed as long as it stays in the project."""
    loaded = read(a="version: 1\ninclude: parts/b.yaml\n", parts__b="include: [../../outside.yaml]\n")
    assert places(loaded.problems) == [("parts/b.yaml", 1, 11, "include-outside", "include.0")]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("https://example.org/a.yaml", "bad-include", 'the name of a file, not the text "https://example.org/a.yaml"'),
        ("''", "bad-include", 'an include is the name of a file, not the text ""'),
        ('"a\\0b"', "bad-include", "not a file name"),
        ("x" * 300, "unreadable-file", "the file cannot be read: file name too long"),
        ("none.yaml", "no-such-file", 'cannot include "none.yaml": there is no such file'),
        ("folder", "not-a-file", 'cannot include "folder": this is a folder, not a file'),
        ("pipe", "not-a-file", 'cannot include "pipe": this is not a regular file'),
        ("5", "wrong-type", "must be text, not the number 5"),
        ("{a: b}", "wrong-type", "must be text, not a map"),
        ("'${NONE}'", "unset-variable", 'the variable "NONE" is not set'),
    ],
)
def test_what_is_no_file_is_refused_at_the_include(name: str, code: str, message: str) -> None:
    """With the reason."""
    Path("folder").mkdir()
    os.mkfifo("pipe")
    (problem,) = read(a=f"version: 1\ninclude:\n  - {name}\n").problems
    assert (problem.file, problem.line, problem.code) == ("a.yaml", 3, code)
    assert message in problem.message


def test_a_link_in_a_circle_is_no_file() -> None:
    """Whatever the version of Python makes of it."""
    Path("round.yaml").symlink_to("round.yaml")
    assert refused("round.yaml").code in ("bad-include", "no-such-file")


def test_a_misspelt_file_is_told_with_the_one_that_was_meant() -> None:
    """From the same folder."""
    write(parts__orders="queues: {}\n")
    assert refused("parts/oders.yaml").help == 'did you mean "orders.yaml"?'


def test_a_name_from_a_variable_is_not_shown() -> None:
    """It may be a secret that came to the wrong place."""
    (problem,) = read({"V": "s3cret"}, a="version: 1\ninclude: ${V}\n").problems
    assert problem.message == "cannot include the value of ${V}: there is no such file"


def test_a_cycle_is_told_with_the_way_round() -> None:
    """At the include that closes it."""
    loaded = read(a="version: 1\ninclude: b.yaml\n", b="include: parts/c.yaml\n", parts__c="include: [../b.yaml]\n")
    assert places(loaded.problems) == [("parts/c.yaml", 1, 11, "include-cycle", "include.0")]
    assert loaded.problems[0].message == "the files include each other: b.yaml → parts/c.yaml → b.yaml"
    (problem,) = read(a="version: 1\ninclude: a.yaml\n").problems
    assert problem.message == "the files include each other: a.yaml → a.yaml"
    assert problem.help == "remove one of these includes"


def test_files_are_included_at_most_eight_deep() -> None:
    """The eighth is read."""
    chain = {f"f{depth}": f"include: f{depth + 1}.yaml\nqueues: {{q{depth}: }}\n" for depth in range(1, 9)}
    loaded = read(a="version: 1\ninclude: f1.yaml\n", f9="queues: {}\n", **chain)
    assert places(loaded.problems) == [("f8.yaml", 1, 10, "too-deep", "include")]
    assert len(spec(f8="queues: {q8: }\n").queues) == 8


def test_a_file_that_is_not_yaml_is_reported_and_the_others_are_checked() -> None:
    """The wrong file is listed too, so that a program that watches the files sees its correction."""
    loaded = read(a="version: 1\ninclude: [b.yaml, c.yaml, d.yaml]\n", b="queues: {q: [\n", c="queues: 5\n", d="")
    assert places(loaded.problems) == [
        ("b.yaml", 1, 13, "yaml-syntax", ""),
        ("c.yaml", 1, 9, "wrong-type", "queues"),
        ("d.yaml", 1, 1, "empty-file", ""),
    ]
    assert loaded.files == tuple(map(Path, ("a.yaml", "b.yaml", "c.yaml", "d.yaml")))
    assert loaded.problems[2].help == "write what it brings, or remove the include"
    Path("b.yaml").write_bytes(b"a: \xff")
    assert load(Path("a.yaml"), {}).problems[0].code == "not-utf-8"


def test_a_pipeline_of_many_files_is_not_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes, files and characters are counted over all of them; what is over the limit is not read."""
    files = {"a": "version: 1\ninclude: [b.yaml, c.yaml]\n", "b": "queues: {q: }\n", "c": "queues: {r: {}}\n"}
    assert read(**files).problems == []
    for limit, number in (("MAX_EXPANDED_NODES", 13), ("MAX_FILES", 2), ("MAX_TOTAL_BYTES", 10)):
        with monkeypatch.context() as patch:
            patch.setattr(limits, limit, number)
            loaded = read(**files)
        assert places(loaded.problems) == [("a.yaml", 2, 19, "too-large", "include.1")]


def test_defaults_of_all_files_share_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told in the file whose defaults are too many."""
    part = "defaults: {queue: {max_length: 5, max_bytes: 1MB, overflow: drop-head}}\nqueues: {%s}\n"
    files = {"a": "version: 1\ninclude: [b.yaml]\n", "b": part % ", ".join(f"q{n}: " for n in range(20))}
    assert read(**files).problems == []
    monkeypatch.setattr(limits, "MAX_EXPANDED_NODES", 100)
    loaded = read(**files)
    assert places(loaded.problems) == [("b.yaml", 1, 19, "too-large", "defaults")]
    assert loaded.files == (Path("a.yaml"), Path("b.yaml"))


# A file with mistakes still shows the rest of them


def test_what_is_right_is_salvaged_from_all_files() -> None:
    """Misspelt keys in an included file count as what was meant."""
    loaded = read(
        a="version: 1\ninclude: b.yaml\nqueues: {q: }\nwrong: 1\n",
        b="subscribers:\n  s:\n    from: q\n    handlr: a:b\n" + "events: {e: }\nname: x\n",
    )
    assert len(loaded.problems) == 3
    assert loaded.recovered is not None
    assert (loaded.recovered.subscribers["s"].handler, list(loaded.recovered.events)) == ("a:b", ["e"])
    problem = loaded.problem("x", ("subscribers", "s", "handler"), "m")
    assert (problem.file, problem.line, problem.column) == ("b.yaml", 4, 13)


def test_nothing_is_salvaged_where_a_file_is_missing() -> None:
    """Its names would be called unknown."""
    loaded = read(a="version: 1\ninclude: none.yaml\n" + S % ("s", ""))
    assert [problem.code for problem in loaded.problems] == ["no-such-file"]
    assert (loaded.spec, loaded.recovered) == (None, None)


def test_of_two_definitions_the_first_is_kept_for_what_else_is_wrong() -> None:
    """A duplicate name hides no other mistakes."""
    loaded = read(a="version: 1\ninclude: b.yaml\nqueues: {q: }\n", b="queues: {q: {type: classic}}\n" + S % ("s", ""))
    assert [problem.code for problem in loaded.problems] == ["duplicate-name"]
    assert loaded.spec is None
    assert loaded.recovered is not None
    assert list(loaded.recovered.subscribers) == ["s"]
