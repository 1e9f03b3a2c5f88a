"""The documents are true: their files and commands are run as a reader would, and their output is what was printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import documents
from tests.node import Broker
from tests.process import ROOT

PAGES = sorted(
    path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if "\n```console\n" in path.read_text("utf-8")
)


@pytest.fixture
def environment(managed: Broker, unique: str) -> Iterator[dict[str, str]]:
    """Variables for a virtual host of this test's own, so that the queues of a page meet no others."""
    with managed.vhost(unique) as url:
        yield {"RABBITMQ_URL": url, "RUNNER_MANAGEMENT": managed.management_url, "PYTHONPATH": str(ROOT)}


def test_the_pages_with_commands_are_found() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "tutorial.md", "handle-dead-letters.md"} <= names


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_does_what_it_says(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """Whoever types what the page shows sees what the page shows."""
    assert documents.play(page, tmp_path, environment) >= 1


@pytest.mark.parametrize("promised", ["12:00:00 a │ done 12345678 5 ms", "anything … end"])
def test_a_wrong_promise_is_noticed(promised: str) -> None:
    """The comparison itself can fail: a line that was not printed, and one that was not promised."""
    assert documents.differences(documents.Command("x", [promised]), "something else\n")
    assert documents.differences(documents.Command("x", [promised]), "")


def test_times_ids_and_order_do_not_matter() -> None:
    """What differs from run to run is not compared."""
    command = documents.Command("x", ["12:00:00 a │ done 0a1b2c3d 5 ms", "…"])
    assert not documents.differences(command, "more\n13:59:01 a │ done ffff0000 6.1 ms\n")


def test_links_between_documents_lead_somewhere() -> None:
    """Files exist, and so do the headings that a link names."""
    wrong = [
        f"{page.relative_to(ROOT)}: {link}" for page in documents.all_pages() for link in documents.broken_links(page)
    ]
    assert wrong == []


def test_tests_that_a_document_names_exist() -> None:
    wrong = [
        f"{page.relative_to(ROOT)}: {test}" for page in documents.all_pages() for test in documents.missing_tests(page)
    ]
    assert wrong == []
