"""Import paths are checked in the sources, and nothing of the user's is run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.pipeline import static_checks, sys_path
from runner.pipeline.import_problems import ImportProblem
from runner.pipeline.signature import BadArguments

SOURCE = """
raise SystemExit("this module must not be run")

from elsewhere import helper as renamed
import os.path

def handle(order): ...
async def with_message(order, message: "runner.Message", *, carrier, limit=3): ...
def produce(): ...
def yields():
    for item in []:
        yield item
async def yields_async(): yield 1
def holds_one():
    def inner(): yield 1
    return inner
@decorated_by
def managed(): yield 1
def needs_two(order, other): ...
def decorated_by(f): return f
@decorated_by
def decorated(): ...
handler_object = decorated_by(handle)
if True:
    def conditional(order): ...
try:
    import fast
except ImportError:
    fast = None
class Model: ...
class Order(Model): ...
class Own:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler): ...
@decorated_by
class Dataclass: ...
try:
    from elsewhere import Bill
except ImportError:
    Bill = None
LIMIT = 5
TEXT = "secret"
a, (b, *c) = 1, (2, 3)
"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    """A package that fails when it is imported, parents included."""
    package = tmp_path / "static_sample"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('nor must this')")
    (package / "orders.py").write_text(SOURCE)
    (package / "broken.py").write_text("\n\ndef f(:\n")
    (package / "star.py").write_text("from os import *\n")
    (package / "dynamic.py").write_text("def __getattr__(name): return 1\n")
    sys_path.extend([str(tmp_path)])
    return "static_sample"


@pytest.mark.parametrize(
    ("name", "arguments", "takes_payload"),
    [
        ("handle", {}, True),
        ("with_message", {"carrier": 1}, True),
        ("produce", {}, False),
        ("decorated", {}, True),
        ("handler_object", {}, True),
        ("conditional", {}, True),
        ("renamed", {}, True),
        ("os", {}, True),
        ("fast", {}, True),
        ("c", {}, True),
    ],
)
def test_what_the_source_makes_is_right(module: str, name: str, arguments: dict[str, Any], takes_payload: bool) -> None:
    """Functions, classes, imports, assignments, also inside conditions; what cannot be judged is taken to be right."""
    static_checks.check_handler(f"{module}.orders:{name}", arguments, takes_payload=takes_payload)


@pytest.mark.parametrize(
    ("path", "arguments", "code", "hint"),
    [
        ("static_sample.orders:handel", {}, "attribute-not-found", '"handle"'),
        ("static_sample.orders:needs_two", {}, "wrong-parameters", "other"),
        ("static_sample.orders:with_message", {}, "wrong-parameters", "carrier"),
        ("static_sample.orders:produce", {}, "wrong-parameters", "first parameter"),
        ("static_sample.orders:handle", {"x": 1}, "wrong-parameters", "with"),
        ("static_sample.nope:f", {}, "module-not-found", "create "),
        ("nowhere_at_all:f", {}, "module-not-found", "looked in"),
        ("static_sample.broken:f", {}, "module-failed", "correct this line"),
        ("static_sample.orders:Model", {}, "wrong-parameters", "write a function"),
    ],
)
def test_what_is_surely_wrong_is_blamed(
    module: str, path: str, arguments: dict[str, Any], code: str, hint: str
) -> None:
    """In the same words as an import would be."""
    with pytest.raises(ImportProblem) as caught:
        static_checks.check_handler(path, arguments, takes_payload=True)
    assert caught.value.code == code
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "path", ["static_sample.star:anything", "static_sample.dynamic:anything", "sys:exit", "math:sin"]
)
def test_what_only_running_would_tell_is_taken_to_be_right(module: str, path: str) -> None:
    """Star imports, modules that make names on demand, modules without source."""
    static_checks.check_handler(path, {}, takes_payload=True)


@pytest.mark.parametrize("name", ["Order", "Own", "Dataclass", "Bill", "fast", "renamed", "handler_object", "c"])
def test_what_may_be_a_schema_is_right(module: str, name: str) -> None:
    """Classes that say what they are made of, and everything that is made at run time."""
    static_checks.check_schema(f"{module}.orders:{name}")


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("handle", "bad-schema", '"static_sample.orders:handle" is a function'),
        ("with_message", "bad-schema", "is a function"),
        ("Model", "bad-schema", "against Model"),
        ("LIMIT", "bad-schema", "against 5"),
        ("TEXT", "bad-schema", "against a text"),
        ("Ordre", "attribute-not-found", 'has no "Ordre"'),
    ],
)
def test_what_is_surely_no_schema_is_blamed(module: str, name: str, code: str, words: str) -> None:
    """In the same words as an import would be."""
    with pytest.raises(ImportProblem) as caught:
        static_checks.check_schema(f"{module}.orders:{name}")
    assert caught.value.code == code
    assert words in str(caught.value)
    assert caught.value.is_attribute


@pytest.mark.parametrize(("name", "hint"), [("yields", "@contextlib.contextmanager"), ("yields_async", ".async")])
def test_a_generator_is_no_factory(module: str, name: str, hint: str) -> None:
    """A handler would get the generator itself."""
    with pytest.raises(ImportProblem) as caught:
        static_checks.check_factory(f"{module}.orders:{name}")
    assert caught.value.code == "bad-factory"
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["produce", "holds_one", "managed", "Model", "handler_object"])
def test_what_may_be_a_factory_is_right(module: str, name: str) -> None:
    """Functions, what a decorator has made, and functions that hold a generator."""
    static_checks.check_factory(f"{module}.orders:{name}")


def test_nothing_was_imported(module: str) -> None:
    """The modules raise SystemExit when they are run: they were not."""
    static_checks.check_handler(f"{module}.orders:handle", {}, takes_payload=True)
    assert not [name for name in sys.modules if name.startswith("static_sample")]


METHODS = """
from abc import ABC
from elsewhere import Base, Thing
import runner
from runner import Message as Envelope
class Message: ...

class Service:
    limit = 5
    class Inner:
        @staticmethod
        def handle(order): ...
    def handle(self, order): ...
    @staticmethod
    def static(order): ...
    @staticmethod
    def needs(order, other): ...
    @classmethod
    def of_class(cls, order): ...
    @Thing
    def decorated(order): ...
class Derived(Base): ...
class Meta(metaclass=Thing):
    def handle(self, order): ...
@Thing
class Decorated:
    def handle(self, order): ...
class Patched:
    def handle(self, order): ...
Patched.handle = staticmethod(lambda order: None)
Patched.more = Patched.handle
service = Service()
def plain(order): ...

def foreign_messages(a: Message, b: Message = None): ...
def typed(order, flag: bool, limit: int | None = None, items: list[int] = (), thing: Thing = None): ...
def message_first(message: Envelope, order): ...
def maybe(order: Thing, other: str): ...
def never(order: Service, other: str): ...
def two(order, a: runner.Message, b: Envelope): ...
"""


@pytest.fixture
def methods(module: str) -> str:
    """One more module of the package."""
    package = Path(next(entry for entry in sys.path if (Path(entry) / module).is_dir())) / module
    (package / "methods.py").write_text(METHODS)
    importlib.invalidate_caches()
    return f"{module}.methods"


@pytest.mark.parametrize(
    "name",
    [
        *("Service.static", "Service.of_class", "Service.decorated", "Service.Inner.handle", "Service.mro"),
        *("service.handle", "service.anything", "plain.delay", "Derived.handle", "Meta.handle", "Decorated.handle"),
        *("Patched.handle", "Patched.more", "foreign_messages", "message_first", "maybe"),
    ],
)
def test_attributes_that_may_be_handlers_are_right(methods: str, name: str) -> None:
    """What decorators, base classes, metaclasses and assignments may make; and any annotation may be `Message`."""
    static_checks.check_handler(f"{methods}:{name}", {}, takes_payload=True)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("Service.handle", "wrong-parameters", "needs an object of class Service"),
        ("Service.needs", "wrong-parameters", 'needs "other"'),
        ("Service.statik", "attribute-not-found", 'has no "Service.statik"'),
        ("Service.Inner.handel", "attribute-not-found", 'has no "Service.Inner.handel"'),
        ("never", "wrong-parameters", 'needs "other"'),
        ("two", "wrong-parameters", "2 parameters"),
    ],
)
def test_attributes_that_are_surely_no_handlers_are_blamed(methods: str, name: str, code: str, words: str) -> None:
    """In the same words as an import would be."""
    with pytest.raises(ImportProblem) as caught:
        static_checks.check_handler(f"{methods}:{name}", {}, takes_payload=True)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_values_are_checked_against_annotations_that_the_source_tells(methods: str) -> None:
    """Python's own types; what others are only running would tell."""
    path = f"{methods}:typed"
    static_checks.check_handler(path, {"flag": "no", "limit": "5", "items": ["1"], "thing": "x"}, takes_payload=True)
    with pytest.raises(BadArguments) as caught:
        static_checks.check_handler(
            path, {"flag": "maybe", "limit": "ten", "items": ["x"], "thing": 5}, takes_payload=True
        )
    assert [mismatch.where for mismatch in caught.value.mismatches] == [("flag",), ("limit",), ("items", 0)]
