"""Files and folders into specs or problems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.config.loader import PipelineFile, find_pipelines, load, load_all, load_text
from runner.errors import PipelineInvalid


def loaded(text: str) -> PipelineFile:
    return load_text(text, Path("folder/a.yaml"), {})


def test_a_pipeline_is_named_by_itself_or_by_its_file(tmp_path: Path) -> None:
    """Without its ending."""
    (tmp_path / "orders.yaml").write_text("version: 1\n")
    assert load(tmp_path / "orders.yaml", {}).name == "orders"
    assert loaded("version: 1\nname: shop\n").name == "shop"
    assert loaded("version: 1\nname: shop\nx: 1\n").name == "a"


def test_a_file_whose_name_is_no_name_needs_one() -> None:
    """The name ends in the names of queues."""
    (problem,) = load_text("version: 1\n", Path("amq.yaml/ a.yaml"), {}).problems
    assert (problem.code, problem.help) == ("bad-name", 'add "name: …"')
    assert load_text("version: 1\nname: x\n", Path(" a.yaml"), {}).problems == []


def test_problems_carry_their_file_and_stand_in_order() -> None:
    """Those of YAML, of variables and of the schema together."""
    result = loaded("version: 1\nqueus: {}\nname: ${NONE}\nowner: 5\nowner: x\n")
    assert [(problem.file, problem.line, problem.code) for problem in result.problems] == [
        ("folder/a.yaml", 2, "unknown-key"),
        ("folder/a.yaml", 3, "unset-variable"),
        ("folder/a.yaml", 4, "wrong-type"),
        ("folder/a.yaml", 5, "duplicate-key"),
    ]
    assert result.spec is None


def test_a_file_that_cannot_be_read_is_a_problem_and_no_exception(tmp_path: Path) -> None:
    """`load` raises for nothing an author can do."""
    for path in (tmp_path / "none.yaml", tmp_path):
        result = load(path, {})
        assert result.spec is None
        assert [problem.file for problem in result.problems] == [str(path)]
        assert result.problem("x", ("a",), "m").line == 0


SUBSCRIBER = 'version: 1\nsubscribers:\n  s:\n    from: q\n    handler: "handlers.a:run"\n    to: [a, b]\n'


@pytest.mark.parametrize(
    ("path", "options", "dotted", "place"),
    [
        (("subscribers", "s", "handler"), {}, "subscribers.s.handler", (5, 14, 16)),
        (("subscribers", "s", "handler"), {"on": "key"}, "subscribers.s.handler", (5, 5, 7)),
        (("subscribers", "s", "handler"), {"offset": 11, "length": 3}, "subscribers.s.handler", (5, 26, 3)),
        (("subscribers", "s", "handler"), {"offset": 11}, "subscribers.s.handler", (5, 26, 3)),
        (("subscribers", "s", "handler"), {"length": 8}, "subscribers.s.handler", (5, 15, 8)),
        (("subscribers", "s", "from", 0), {}, "subscribers.s.from", (4, 11, 1)),
        (("subscribers", "s", "to", 1), {}, "subscribers.s.to.1", (6, 13, 1)),
        (("subscribers", "s", "timeout"), {}, "subscribers.s.timeout", (3, 3, 1)),
        (("queues", "x"), {}, "queues.x", (1, 1, 1)),
        ((), {}, "", (1, 1, 1)),
    ],
)
def test_other_rooms_get_problems_at_the_place_of_a_path(
    path: tuple[str | int, ...], options: dict[str, object], dotted: str, place: tuple[int, int, int]
) -> None:
    """Or of its nearest parent in the file; `offset` counts behind the opening quote."""
    problem = loaded(SUBSCRIBER).problem("code", path, "message", "help", **options)  # type: ignore[arg-type]
    assert (problem.path, problem.file) == (dotted, "folder/a.yaml")
    assert (problem.line, problem.column, problem.length) == place


def test_a_problem_hides_passwords_of_urls() -> None:
    """Whoever makes it."""
    problem = loaded(SUBSCRIBER).problem("code", (), "no amqp://u:S3CR3T@h", severity="warning")
    assert (problem.message, problem.severity) == ("no amqp://u:***@h", "warning")


# Folders


def test_a_folder_stands_for_the_pipelines_below_it(tmp_path: Path) -> None:
    """Sorted; other YAML and hidden folders are passed over; each file once."""
    for name in ("b.yaml", "a.yml", "deep/c.yaml", ".hidden/d.yaml", ".e.yaml", "f.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("# a pipeline\nversion: 1\n")
    (tmp_path / "compose.yaml").write_text("services: {x: {version: 1}}\n")
    (tmp_path / "bom.yaml").write_bytes(b'\xef\xbb\xbf"version": 1\n')
    names = ["a.yml", "b.yaml", "bom.yaml", "deep/c.yaml"]
    assert find_pipelines([tmp_path]) == [tmp_path / name for name in names]
    assert find_pipelines([tmp_path / "deep" / "c.yaml", tmp_path])[0] == tmp_path / "deep" / "c.yaml"
    assert len(find_pipelines([tmp_path, tmp_path / "b.yaml"])) == 4
    assert len(find_pipelines([tmp_path, Path(os.path.relpath(tmp_path / "b.yaml"))])) == 4


def test_a_file_given_by_name_is_taken_as_it_is(tmp_path: Path) -> None:
    """What is wrong with it is said when it is read."""
    (tmp_path / "f.txt").write_text("hello")
    assert find_pipelines([tmp_path / "f.txt"]) == [tmp_path / "f.txt"]


def test_missing_paths_and_empty_folders_are_told_together(tmp_path: Path) -> None:
    """Each with its name."""
    with pytest.raises(PipelineInvalid) as caught:
        find_pipelines([tmp_path / "none", tmp_path])
    assert [(problem.code, problem.file) for problem in caught.value.problems] == [
        ("no-such-file", str(tmp_path / "none")),
        ("no-pipelines", str(tmp_path)),
    ]


def test_a_folder_without_pipelines_is_shown_the_only_one_beside_it(tmp_path: Path) -> None:
    """Of several, it is not known which one is meant."""
    (tmp_path / "handlers").mkdir()
    helps = []
    for name in ("shop.yaml", "shop.test.yaml", "other.yaml"):
        (tmp_path / name).write_text("tests: {}\n" if ".test." in name else "version: 1\n")
        with pytest.raises(PipelineInvalid) as caught:
            find_pipelines([tmp_path / "handlers"])
        helps.append(caught.value.problems[0].help)
    assert (
        helps[0] == helps[1] == f'a pipeline is a *.yaml file with a "version:" key, such as {tmp_path / "shop.yaml"}'
    )
    assert helps[2] == 'a pipeline is a *.yaml file with a "version:" key'


PIPELINE = "version: 1\nname: shop\nqueues: {orders: }\nsubscribers: {ship: {from: orders, handler: shop:ship}}\n"
OVERLAY = "broker: ${URL}\nsubscribers:\n  ship: {concurrency: 20}\n"


def test_an_overlay_in_place_of_a_pipeline_is_one_problem(tmp_path: Path) -> None:
    """In the folder, beside the pipeline, alone, and swapped with it. A file with a name of its own is none."""
    pipeline, overlay, other = tmp_path / "pipeline.yaml", tmp_path / "prod.yaml", tmp_path / "other.yaml"
    pipeline.write_text(PIPELINE)
    overlay.write_text(OVERLAY)
    for paths in ([tmp_path], [pipeline, overlay], [overlay]):
        problem, *more = [each for loaded in load_all(paths, {}) for each in loaded.problems]
        assert not more
        assert (problem.file, problem.message) == (
            str(overlay),
            f'missing key "version": this looks like an overlay of {pipeline}',
        )
        assert problem.help == f'pass it with --overlay {overlay}, or give it the key "pipeline: shop"'
    (loaded,) = load_all([overlay], {}, [pipeline])
    assert [each.help for each in loaded.problems] == [
        f"give {pipeline} as the pipeline, and write --overlay {overlay}"
    ]
    other.write_text(OVERLAY.replace("ship", "pack"))
    assert 'missing key "version"' in [each.message for each in load_all([other], {})[0].problems]


@pytest.mark.parametrize(
    ("text", "is_data"),
    [
        ('{"id": 7, "price": 3}', True),
        ('\n[{"id": 7}]', True),
        ('{"id": 7}\n{"id": 8}\n', True),
        ('{"version": 1, "queues": {"a": null}, "oops": 1}', False),
        ('{"version": 1, "quues": {}}', False),
        ("{{ include }}", False),
    ],
)
def test_json_data_is_not_a_pipeline(text: str, is_data: bool) -> None:
    """A pipeline can be written as JSON, too."""
    problems = load_text(text, Path("order.json"), {}).problems
    assert problems
    assert (problems[0].message == "this looks like JSON data, not a pipeline") is is_data
