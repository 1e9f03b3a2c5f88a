"""Which file a module comes from: the same with and without imports, and never another one in silence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runner.config import loader
from runner.errors import PipelineInvalid, Problem
from runner.pipeline import sys_path
from runner.pipeline.module_search import ModuleSearch, find_module, module_searches
from runner.system import check, load

HANDLER = "def work(text): ...\n"


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def pipeline(name: str, handler: str, extra: str = "") -> str:
    return f"""
        version: 1
        name: {name}
        {extra}
        queues: {{{name}.q: , {name}.r: }}
        subscribers: {{one: {{from: {name}.q, handler: "{handler}"}}, two: {{from: {name}.r, handler: "{handler}"}}}}
        """.replace("        ", "")


def found(*paths: str) -> list[tuple[str, str]]:
    """Return what is wrong with pipelines, as (code, message); the same must be said without imports."""
    said = [problem for problem in _read(paths) if problem.code != "unread-queue"]
    static, _ = check([Path(path) for path in paths], {})
    assert [(item.code, item.message) for item in static] == [(item.code, item.message) for item in said]
    return [(item.code, item.message.partition(" (also named by ")[0]) for item in said]


def _read(paths: tuple[str, ...]) -> list[Problem]:
    known = set(sys.modules)
    try:
        return list(load([Path(path) for path in paths], {}).warnings)
    except PipelineInvalid as invalid:
        return list(invalid.problems)
    finally:
        for name in set(sys.modules) - known:
            del sys.modules[name]


def conflict(name: str, file: str, other: str) -> list[tuple[str, str]]:
    words = f"is {file} for this pipeline, but {other} is imported by that name in the same process"
    return [("module-conflict", f"module {name} {words}")]


def hidden(name: str, file: str, other: str, code: str = "module-conflict") -> list[tuple[str, str]]:
    return [(code, f"module {name} is {file}, which hides {other}")]


def test_a_module_beside_the_pipeline_is_found_from_any_folder(project: Path) -> None:
    """As `python app/main.py` finds it; also a package, and one without `__init__.py`."""
    write({"app/mine_a.py": HANDLER, "app/pkg_a/__init__.py": "", "app/pkg_a/deep/mine.py": HANDLER})
    for handler in ("mine_a:work", "pkg_a.deep.mine:work"):
        write({"app/p.yaml": pipeline("p", handler)})
        assert found("app/p.yaml") == []


@pytest.mark.parametrize(
    ("file", "folder", "files", "path", "where"),
    [
        ("src/shop/p.yaml", ".", ["src/shop/__init__.py"], "..", 'this folder is in the package "shop"'),
        ("src/shop/p.yaml", "src/shop", ["src/shop/__init__.py"], "..", 'this folder is in the package "shop"'),
        ("src/shop/deep/p.yaml", ".", [], "../..", 'this folder is in the package "shop"'),
        ("deploy/p.yaml", ".", ["src/shop/__init__.py"], "../src", "it is in src/"),
        ("deploy/p.yaml", "deploy", [], "../src", "it is in {src}/"),
    ],
)
def test_a_package_above_the_pipeline_is_named_by_its_folder(
    project: Path, file: str, folder: str, files: list[str], path: str, where: str
) -> None:
    """With the path from the pipeline's file, wherever the command runs; what it says to add mends it."""
    write({file: pipeline("p", "shop.orders:work"), "src/shop/orders.py": HANDLER, **dict.fromkeys(files, "")})
    os.chdir(project / folder)
    ((problem, _),) = [(item, item.code) for item in _read((str(project / file),)) if item.code != "unread-queue"]
    added = f"python_path: [{path}]"
    assert problem.help == f"{where.format(src=project / 'src')}: add `{added}` at the top level of the pipeline"
    write({str(project / file): pipeline("p", "shop.orders:work", added)})
    assert found(str(project / file)) == []


def test_a_module_in_the_current_folder_is_found(project: Path) -> None:
    """`handlers/` beside `pipelines/`."""
    write({"pipelines/p.yaml": pipeline("p", "handlers_b.orders:work"), "handlers_b/orders.py": HANDLER})
    assert found("pipelines/p.yaml") == []


@pytest.mark.parametrize("module", ["same_c", "same_c.inner", "same_c/__init__", "same_c/inner"])
def test_two_pipelines_with_modules_of_one_name(project: Path, module: str) -> None:
    """Modules, packages, and modules in packages with and without `__init__.py`; one problem for both handlers."""
    file = module.replace(".", "/") + ".py"
    write({f"{place}/{file}": HANDLER for place in "ab"})
    if module == "same_c.inner":
        write({f"{place}/same_c/__init__.py": "" for place in "ab"})
    name = module.removesuffix("/__init__").replace("/", ".")
    write({f"{place}/p.yaml": pipeline(place, f"{name}:work") for place in "ab"})
    first = "same_c/__init__.py" if module == "same_c.inner" else file
    shown = '"same_c"' if module == "same_c.inner" else f'"{name}"'
    assert found("a", "b") == conflict(shown, f"b/{first}", f"a/{first}")
    assert found("b", "a") == conflict(shown, f"a/{first}", f"b/{first}")
    assert found("a") == found("b") == []


def test_parts_of_a_package_without_init_stand_together(project: Path) -> None:
    """Two pipelines may each have a part of it."""
    write({"a/both_d/x.py": HANDLER, "b/both_d/y.py": HANDLER})
    write({"a/p.yaml": pipeline("a", "both_d.x:work"), "b/p.yaml": pipeline("b", "both_d.y:work")})
    assert found("a", "b") == []


def test_the_folder_of_another_pipeline_does_not_help(project: Path) -> None:
    """What a pipeline does not find alone, it does not find beside others."""
    write({"a/only_e.py": HANDLER, "a/p.yaml": pipeline("a", "only_e:work"), "b/p.yaml": pipeline("b", "only_e:work")})
    assert found("a", "b") == [("module-not-found", 'module "only_e" not found')]


@pytest.mark.parametrize("where", ["top", "function", "relative", "second"])
def test_modules_that_handlers_import(project: Path, where: str) -> None:
    """Also inside a function, by a relative import, and by a module that is imported in turn."""
    for place in "ab":
        imports = {
            "top": "import below_f\n",
            "function": "def late():\n    from below_f import RATE\n",
            "relative": "from . import below_f\n",
            "second": f"import between_{place}\n",
        }[where]
        folder = f"{place}/pkg_{place}" if where == "relative" else place
        write({f"{folder}/top_{place}.py": imports + HANDLER, f"{folder}/below_f.py": "RATE = 1\n"})
        write({f"{place}/between_{place}.py": "from below_f import RATE\n"})
        handler = f"pkg_{place}.top_{place}:work" if where == "relative" else f"top_{place}:work"
        write({f"{place}/p.yaml": pipeline(place, handler)})
    importer = "b/between_b.py" if where == "second" else "b/top_b.py"
    expected = conflict(f'"below_f", which {importer} imports,', "b/below_f.py", "a/below_f.py")
    assert found("a", "b") == ([] if where == "relative" else expected)


def test_what_is_not_imported_is_no_problem(project: Path) -> None:
    """Two projects may each have tests and a `setup.py`."""
    for place in "ab":
        write({f"{place}/own_{place}.py": HANDLER, f"{place}/setup.py": "", f"{place}/tests_g/__init__.py": ""})
        write({f"{place}/p.yaml": pipeline(place, f"own_{place}:work"), f"{place}/calendar.py": ""})
    assert found("a", "b") == []


def test_an_earlier_folder_of_the_import_path_hides_a_later_one(project: Path) -> None:
    """`python_path` comes first, then the folder of the file, then the current one."""
    write({"a/one/mod_h.py": HANDLER, "a/two/mod_h.py": HANDLER})
    write({"a/p.yaml": pipeline("a", "mod_h:work", "python_path: [one, two]")})
    assert found("a") == hidden('"mod_h"', "a/one/mod_h.py", "a/two/mod_h.py")
    write({"a/p.yaml": pipeline("a", "mod_h:work", "python_path: one"), "a/mod_h.py": HANDLER})
    assert found("a") == hidden('"mod_h"', "a/one/mod_h.py", "a/mod_h.py")
    write({"a/p.yaml": pipeline("a", "mod_h:work", "python_path: [one, one]"), "mod_h.py": HANDLER})
    Path("a/mod_h.py").unlink()
    assert found("a") == hidden('"mod_h"', "a/one/mod_h.py", "mod_h.py", "hidden-module")


def test_a_package_hides_the_parts_of_a_package_without_init(project: Path) -> None:
    """The message names the file that the author has in mind."""
    write({"a/one/pkg_i/__init__.py": "", "a/pkg_i/orders.py": HANDLER})
    write({"a/p.yaml": pipeline("a", "pkg_i.orders:work", "python_path: one")})
    assert found("a") == hidden('"pkg_i.orders"', "a/one/pkg_i/__init__.py", "a/pkg_i/orders.py")


def test_the_standard_library_is_never_hidden_and_never_silent(project: Path) -> None:
    """Neither for a handler's module nor for one that it imports."""
    write({"a/colorsys.py": HANDLER, "a/p.yaml": pipeline("a", "colorsys:work")})
    assert found("a") == hidden('"colorsys"', "Python's own", "a/colorsys.py")
    write({"a/mod_j.py": f"import time\n{HANDLER}", "a/time.py": "", "a/p.yaml": pipeline("a", "mod_j:work")})
    assert found("a") == hidden('"time", which a/mod_j.py imports,', "Python's own", "a/time.py", "hidden-module")


@pytest.mark.parametrize("name", ["runner", "yaml", "aio_pika"])
def test_what_the_runner_needs_cannot_be_hidden(project: Path, name: str) -> None:
    """Whether a handler names it or not, as a module and as a package; a folder without `__init__.py` hides nothing."""
    write({f"a/{name}/notes.txt": "", "a/mod_k.py": HANDLER, "a/p.yaml": pipeline("a", "mod_k:work")})
    assert found("a") == []
    for file in (f"a/{name}.py", f"a/{name}/__init__.py"):
        write({file: HANDLER})
        for handler in ("mod_k:work", f"{name}:work"):
            write({"a/p.yaml": pipeline("a", handler)})
            [(code, message)] = found("a")
            assert (code, f"{file} would hide it" in message) == ("reserved-module", True)
        Path(file).unlink()


def test_a_module_that_is_imported_already_is_not_taken_for_another(project: Path) -> None:
    """Whatever has imported it."""
    write({"elsewhere/loaded_l.py": "", "a/loaded_l.py": HANDLER, "a/p.yaml": pipeline("a", "loaded_l:work")})
    sys.path.insert(0, "elsewhere")
    __import__("loaded_l")
    sys.path.remove("elsewhere")
    assert found("a") == conflict('"loaded_l"', "a/loaded_l.py", "elsewhere/loaded_l.py")


def test_one_broken_module_is_one_problem(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However many handlers name it; and it is run once."""
    write({"a/broken_m.py": "print('run')\n1 / 0\n", "a/p.yaml": pipeline("a", "broken_m:work")})
    [problem] = _read(("a",))
    assert (problem.code, problem.path) == ("module-failed", "subscribers.one.handler")
    assert (problem.file, problem.line) == (str(project / "a/broken_m.py"), 2)
    assert problem.message.endswith(" (also named by subscribers.two)")
    assert capsys.readouterr().out == "run\n"


def test_a_name_is_found_as_an_import_finds_it(project: Path) -> None:
    """In packages whose parents are no packages yet, and nowhere."""
    write({"x/n1/n2/m.py": ""})
    specs = list(find_module("n1.n2.m", [os.path.realpath("x")]))
    assert [(name, spec is not None) for name, spec in specs] == [("n1", True), ("n1.n2", True), ("n1.n2.m", True)]
    assert [spec for _, spec in find_module("nowhere_at_all.m", sys.path)] == [None]


def test_folders_come_behind_the_standard_library_and_before_packages(project: Path) -> None:
    """In the order of the pipelines, each folder once."""
    write({"a/p.yaml": pipeline("a", "m:work", "python_path: lib"), "b/p.yaml": pipeline("b", "m:work")})
    module_searches([loader.load(Path("a/p.yaml"), {}), loader.load(Path("b/p.yaml"), {})])
    ours = [os.path.realpath(name) for name in ("a/lib", "a", "b", ".")]
    position = sys.path.index(ours[0])
    assert sys.path[position : position + 4] == ours
    assert sys.path[position - 1].startswith(os.path.dirname(os.__file__))
    assert ModuleSearch(loader.load(Path("b/p.yaml"), {})).search_folders == ours[2:]
    assert not set(ours) & set(sys_path.base())
