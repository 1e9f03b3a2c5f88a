"""A project's modules are imported again, and the old ones put back as if nothing had happened."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.pipeline import sys_path
from runner.pipeline.project_modules import ProjectModules


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProjectModules]:
    """The modules of a project in `tmp_path`: `work`, and the package `shop` with two modules."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "prices.py").write_text("from . import taxes\nPRICE = 1\n")
    (tmp_path / "shop" / "taxes.py").write_text("TAX = 1\n")
    (tmp_path / "work.py").write_text(
        "import json\nimport shop.prices\n\n\ndef lazy():\n    import lazy_one\n    return lazy_one.VALUE\n"
    )
    (tmp_path / "lazy_one.py").write_text("VALUE = 1\n")
    found = ProjectModules()
    yield found
    found.replace({})


def test_modules_are_read_again(modules: ProjectModules, tmp_path: Path) -> None:
    """Also when source changes twice in a second, and has the same size: there is no bytecode."""
    first = importlib.import_module("work")
    for price in range(2, 6):
        (tmp_path / "shop" / "prices.py").write_text(f"from . import taxes\nPRICE = {price}\n")
        old = modules.replace({})
        again = importlib.import_module("work")
        assert again is not first
        assert price == again.shop.prices.PRICE
        assert price - 1 == old["shop.prices"].PRICE
    assert not (tmp_path / "shop" / "__pycache__").exists()


def test_the_old_ones_come_back(modules: ProjectModules, tmp_path: Path) -> None:
    """With packages that have no `__init__.py`, and with what a function has imported."""
    work = importlib.import_module("work")
    assert work.lazy() == 1
    names = set(modules.imported())
    assert names == {"work", "shop", "shop.prices", "shop.taxes", "lazy_one"}
    old = modules.replace({})
    assert not modules.imported()
    (tmp_path / "lazy_one.py").write_text("VALUE = 2\n")
    (tmp_path / "shop" / "taxes.py").write_text("TAX = 2\n")
    assert importlib.import_module("work").lazy() == 2
    modules.replace(old)
    assert work.lazy() == 1
    assert sys.modules["work"] is work
    assert sys.modules["shop"].prices.taxes.TAX == 1


def test_a_package_that_is_partly_installed(
    modules: ProjectModules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package stays, and its module of the project is the old one again."""
    installed = tmp_path / "site-packages"
    for folder in (installed, tmp_path):
        (folder / "acme").mkdir(parents=True)
    (installed / "acme" / "base.py").write_text("")
    (tmp_path / "acme" / "own.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(installed))
    importlib.import_module("acme.base")
    importlib.import_module("acme.own")
    assert set(modules.imported()) == {"acme.own"}
    old = modules.replace({})
    (tmp_path / "acme" / "own.py").write_text("VALUE = 2\n")
    importlib.import_module("acme.own")
    modules.replace(old)
    assert sys.modules["acme"].own.VALUE == 1


def test_what_a_module_depends_on(modules: ProjectModules, tmp_path: Path) -> None:
    """Its own file, and in turn what it imports: not what is installed, and not what uses it."""
    importlib.import_module("work")
    files = {str(path.relative_to(tmp_path)) for path in modules.sources("work")}
    assert files == {"work.py", "shop/prices.py", "shop/taxes.py", "lazy_one.py"}
    assert "lazy_one" not in sys.modules
    assert {path.name for path in modules.sources("shop.prices")} == {"prices.py", "taxes.py"}
    assert modules.sources("json") == set()


def test_folders_of_projects(modules: ProjectModules, tmp_path: Path) -> None:
    entries = sys_path.project_entries()
    assert str(tmp_path) in entries
    assert not any("site-packages" in entry or entry.startswith(sys.base_prefix) for entry in entries)
