"""Import paths lead to objects, or to exact blame."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runner.pipeline import sys_path
from runner.pipeline.import_problems import ImportProblem, Place
from runner.pipeline.importer import import_exception, import_object


@pytest.fixture(autouse=True)
def import_path(project: Path) -> None:
    """The project's folder is on the import path."""
    sys_path.extend([str(project)])


def write(project: Path, name: str, text: str) -> None:
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def blame(path: str) -> ImportProblem:
    with pytest.raises(ImportProblem) as caught:
        import_object(path)
    return caught.value


def test_an_object_is_found(project: Path) -> None:
    """In a module of a package, also of one without __init__.py."""
    write(project, "pkg_a/orders.py", "def place(): return 1")
    assert import_object("pkg_a.orders:place")() == 1


def test_a_module_that_is_nowhere(project: Path) -> None:
    """Says what is missing and where it looked."""
    write(project, "pkg_b/__init__.py", "")
    found = blame("pkg_b.nope:f")
    assert found.code == "module-not-found"
    assert str(found) == 'module "pkg_b.nope" not found'
    assert found.hint == "create pkg_b/nope.py, or correct the name"
    assert not found.is_attribute
    assert "looked in" in blame("nowhere_at_all:f").hint
    assert 'there is no "nowhere_at_all"' in str(blame("nowhere_at_all.sub:f"))


def test_a_module_that_lacks_something_it_imports_is_not_called_missing(project: Path) -> None:
    """The blame is the module's own import, with file and line."""
    write(project, "needs_more.py", "x = 1\nimport surely_not_installed\n")
    found = blame("needs_more:f")
    assert found.code == "module-failed"
    assert str(found) == 'module "needs_more" imports "surely_not_installed", which is not installed'
    assert found.hint == f"run: {sys.executable} -m pip install surely-not-installed"
    assert found.place == Place(str(project / "needs_more.py"), 2, 8, len("surely_not_installed"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n1 / 0\n", "failed to import: ZeroDivisionError"),
        ("\n\nraise SystemExit(3)\n", "SystemExit: 3"),
        ("\n\ndef broken(:\n", "is not valid Python: invalid syntax"),
        ("\n\nraise BaseException('odd')\n", "BaseException: odd"),
    ],
)
def test_a_module_that_fails(project: Path, text: str, message: str) -> None:
    """Whatever it raises: its own last line, and where."""
    write(project, "fails_itself.py", text)
    found = blame("fails_itself:f")
    assert found.code == "module-failed"
    assert message in str(found)
    assert found.place is not None
    assert (found.place.file, found.place.line) == (str(project / "fails_itself.py"), 3)


SETTINGS = """
from pydantic import BaseModel


class Settings(BaseModel):
    key: str
    dsn: str


settings = Settings(**{"key": "sk_live_1"})
"""


def test_a_module_that_fails_in_a_library_is_blamed_at_its_own_line_without_values(project: Path) -> None:
    """Settings that lack something: one line that says what, no value of the others, and no line of the library."""
    write(project, "settings_fail.py", SETTINGS)
    found = blame("settings_fail:f")
    assert str(found) == 'module "settings_fail" failed to import: Settings cannot be made: dsn is missing'
    assert found.place == Place(
        str(project / "settings_fail.py"), 10, 1, len('settings = Settings(**{"key": "sk_live_1"})')
    )


def test_an_error_of_several_lines_is_one_line(project: Path) -> None:
    """Its notes are left out."""
    write(project, "says_much.py", "error = OSError('one\\n  two')\nerror.add_note('three')\nraise error\n")
    assert str(blame("says_much:f")) == 'module "says_much" failed to import: OSError: one two'


def test_a_name_that_a_module_does_not_have(project: Path) -> None:
    """With a suggestion where one is near."""
    write(project, "has_names.py", "def process_order(): ...")
    near, far = blame("has_names:proces_order"), blame("has_names:zzz")
    assert near.code == far.code == "attribute-not-found"
    assert near.hint == 'did you mean "process_order"?'
    assert near.is_attribute
    assert "has_names.py" in str(far)


def test_the_project_does_not_shadow_the_standard_library(project: Path) -> None:
    """A project's module with the name of a standard one does not replace it, and its names are not found."""
    write(project, "colorsys.py", "def mine(): ...")
    assert blame("colorsys:mine").code == "attribute-not-found"


def test_exceptions_are_found_by_name_and_by_path(project: Path) -> None:
    """Python's own by their name, others by import path; anything else is blamed."""
    write(project, "errors_here.py", "class Busy(Exception): ...\nnot_one = 5")
    assert import_exception("TimeoutError") is TimeoutError
    assert import_exception("errors_here:Busy").__name__ == "Busy"
    for path, code, hint in (
        ("TimeoutEror", "unknown-exception", 'did you mean "TimeoutError"?'),
        ("errors_here:not_one", "not-an-exception", "derived from Exception"),
        ("print", "not-an-exception", "derived from Exception"),
    ):
        with pytest.raises(ImportProblem) as caught:
            import_exception(path)
        assert (caught.value.code, hint in caught.value.hint) == (code, True)
