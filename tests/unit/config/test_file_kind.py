"""What YAML files in a folder are taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config.file_kind import FileKind, detect_file_kind
from runner.config.loader import load_all
from runner.errors import PipelineInvalid

PIPELINES = [
    "version: 1\n",
    "# a pipeline\nversion: 1\nname: shop\n",
    "version: 2\nqueues: {q: }\n",
    "version:\nqueues: {q: }\n",
    '{"version": 1, "queues": {"q": null}}',
    "version: 1\nqueus: {q: }\n",
    "version: 1\nsomething: else\n",
    "name: shop\nversion: 1 # the first\n",
    "version: 3\nsubscriber: {}\nproducer: {}\n",
    "version: '1'\r\nqueues: {}\r\n",
    '{\n  "version": 1,\n  "queues": {}\n}\n',
    "  version: 1\n  queues: {}\n",
]
PARTS = [
    "queues: {q: }\n",
    "events: {e: }\n",
    "subscribers: {}\n",
    "producers: {}\n",
    "exchanges: {}\n",
    "vesion: 1\nqueues: {q: }\n",
    "vesion: 1\n",
    "Version: 1\nname: x\n",
    "verison: 1\nqueue: {}\n",
    "name: shop\nsubscriber: {}\nqueue: {}\n",
]
OTHERS = [
    "",
    "- a\n- list\n",
    'version: "3.8"\nservices: {db: {image: postgres}}\nnetworks: {}\n',
    "services: {runner: {image: shop}}\n",
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop}\nspec: {}\n",
    "apiVersion: v2\nname: chart\ndescription: x\nversion: 0.1.0\nappVersion: 1\n",
    "apiVersion: kustomize.config.k8s.io/v1beta1\nresources: [a.yaml]\n",
    "apiVersion: v1\nkind: ConfigMap\ndata:\n  p.yaml: |\n    version: 1\n    queues: {q: }\n",
    "name: CI\non: [push]\njobs: {test: {steps: []}}\n",
    "stages: [test]\ninclude: other.yml\ndefault: {image: x}\n",
    "version: 2.1\njobs: {}\nworkflows: {}\n",
    "version: 0.2\nphases: {build: {}}\n",
    "version: 2\nupdates: []\n",
    "version: '3'\ntasks: {}\n",
    "asyncapi: 2.6.0\ninfo: {version: 1}\nchannels: {}\n",
    "openapi: 3.1.0\ninfo:\n  version: 1\npaths: {}\n",
    "repos: [{repo: x, rev: y, hooks: []}]\n",
    "global: {}\nscrape_configs: []\n",
]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *((text, FileKind.PIPELINE) for text in PIPELINES),
        *((text, FileKind.PART) for text in PARTS),
        *((text, FileKind.OTHER) for text in OTHERS),
    ],
)
def test_a_file_is_recognized_by_its_keys(text: str, kind: FileKind) -> None:
    """Also with a byte order mark, and in an encoding that is refused later."""
    assert detect_file_kind(text.encode()) is kind
    assert detect_file_kind(text.encode("utf-8-sig")) is kind
    assert detect_file_kind(text.encode("utf-16")) is kind


def codes(folder: Path) -> list[tuple[str, str]]:
    return [(problem.code, Path(problem.file).name) for loaded in load_all([folder], {}) for problem in loaded.problems]


def test_a_file_without_a_version_is_an_error_unless_it_is_included(tmp_path: Path) -> None:
    """By any pipeline of the folder, over any number of files; as when it is named alone."""
    (tmp_path / "a.yaml").write_text("version: 1\ninclude: shared/one.yaml\n")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/one.yaml").write_text("include: two.yaml\nqueues: {q: }\n")
    (tmp_path / "shared/two.yaml").write_text("events: {e: }\n")
    (tmp_path / "compose.yaml").write_text(OTHERS[2])
    assert codes(tmp_path) == []
    (tmp_path / "b.yaml").write_text("queues: {r: }\n")
    assert codes(tmp_path) == codes(tmp_path / "b.yaml") == [("missing-key", "b.yaml")]
    (tmp_path / "b.yaml").write_text("vesion: 1\nqueues: {r: }\n")
    assert codes(tmp_path) == [("unknown-key", "b.yaml")]


def test_a_folder_with_nothing_else_is_not_empty(tmp_path: Path) -> None:
    """What is wrong with the only file is what is said."""
    (tmp_path / "b.yaml").write_text("queues: {r: }\n")
    assert codes(tmp_path) == [("missing-key", "b.yaml")]


def test_where_a_pipeline_cannot_be_parsed_its_parts_are_not_blamed(tmp_path: Path) -> None:
    """They may be what it includes."""
    (tmp_path / "a.yaml").write_text("version: 1\ninclude: [one.yaml\n")
    (tmp_path / "one.yaml").write_text("queues: {q: }\n")
    assert {file for _, file in codes(tmp_path)} == {"a.yaml"}


def test_files_of_other_programs_are_no_pipelines(tmp_path: Path) -> None:
    """A folder that has only such is one without pipelines."""
    for index, text in enumerate(OTHERS):
        (tmp_path / f"{index}.yaml").write_text(text)
    with pytest.raises(PipelineInvalid) as caught:
        load_all([tmp_path], {})
    assert [problem.code for problem in caught.value.problems] == ["no-pipelines"]


def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    """It may have been a pipeline."""
    (tmp_path / "a.yaml").write_text("version: 1\n")
    (tmp_path / "b.yaml").symlink_to(tmp_path / "gone.yaml")
    assert codes(tmp_path) == [("no-such-file", "b.yaml")]


def test_installed_packages_are_not_searched(tmp_path: Path) -> None:
    """Whatever they have in them."""
    (tmp_path / "a.yaml").write_text("version: 1\n")
    for name in ("venv/lib", "node_modules/x"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "b.yaml").write_text("queues: {q: }\n")
    (tmp_path / "venv/pyvenv.cfg").write_text("")
    assert codes(tmp_path) == []
