"""What `validate` accepts is called without an error, and each parameter gets what is meant for it.

Handlers of every shape are generated as source text. What `read_handler` accepts is called by the `Caller` that runs
handlers, and the static check must accept it, too.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import Message
from runner.outcome import RetryPolicy
from runner.pipeline import static_checks
from runner.pipeline.import_problems import ImportProblem
from runner.pipeline.importer import import_callable
from runner.pipeline.model import Handler, Subscriber
from runner.pipeline.signature import BadArguments, read_handler
from runner.runtime.handler_invoker import HandlerInvoker

NAMES = ("one", "two", "three", "four", "five")
PAYLOAD, RESOURCE, DEFAULT = "the payload", "the resource", "a default"

# How a module may come to know `runner.Message`, and how it then writes it.
IMPORTS = {
    "from runner import Message": "Message",
    "from runner import Message as Envelope": "Envelope",
    "from runner.message import Message": "Message",
    "import runner": "runner.Message",
    "import runner as r": "r.Message",
    "from reexports import Sent": "Sent",
    "if TYPE_CHECKING:\n    from runner import Message": "Message",
    "from foreign import Message": "Message",
    "class Message: ...": "Message",
}
FORMS = ("{}", "{} | None", "Optional[{}]", "Annotated[{}, 'the envelope']", "'{}'", "'{} | None'", "Optional['{}']")


@dataclass(frozen=True)
class Written:
    """One parameter as it is written."""

    name: str
    kind: str
    has_default: bool
    annotation: str

    @property
    def text(self) -> str:
        stars = {"args": "*", "kwargs": "**"}.get(self.kind, "")
        annotation = f": {self.annotation}" if self.annotation else ""
        return f"{stars}{self.name}{annotation}{' = DEFAULT' if self.has_default else ''}"


@dataclass(frozen=True)
class Case:
    """A handler, and what the pipeline says of it."""

    header: str
    is_async: bool
    parameters: tuple[Written, ...]
    arguments: dict[str, Any]
    resources: tuple[str, ...]

    @property
    def source(self) -> str:
        texts: list[str] = []
        for kind, group in itertools.groupby(self.parameters, lambda item: item.kind):
            texts += ["*"] if kind == "named" and not any(item.kind == "args" for item in self.parameters) else []
            texts += [item.text for item in group]
            texts += ["/"] if kind == "positional" else []
        start = "async def" if self.is_async else "def"
        return f"{self.header}\n\n{start} handle({', '.join(texts)}):\n    return dict(locals())\n"


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    """Draw a handler with a `with:` and resources that may or may not fit it."""
    imported = draw(st.sampled_from(sorted(IMPORTS)))
    is_lazy = draw(st.booleans()) or "TYPE_CHECKING" in imported
    message = st.sampled_from(FORMS).map(lambda form: form.format(IMPORTS[imported]))
    annotations = st.one_of(
        st.sampled_from(["", "str", "Any", "Order"]), message, st.just("Nowhere" if is_lazy else "")
    )
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5))
    kinds = sorted(
        (draw(st.sampled_from(["positional", "usual", "named"])) for _ in names),
        key=["positional", "usual", "named"].index,
    )
    parameters, has_default = [], False
    for name, kind in zip(names, kinds, strict=True):
        has_default = draw(st.booleans()) or (has_default and kind != "named")
        parameters.append(Written(name, kind, has_default, draw(annotations)))
    if draw(st.booleans()):
        at = next((index for index, item in enumerate(parameters) if item.kind == "named"), len(parameters))
        parameters.insert(at, Written("args", "args", False, ""))
    if draw(st.booleans()):
        parameters.append(Written("kwargs", "kwargs", False, ""))
    some = st.lists(st.sampled_from([*NAMES, "args", "kwargs", "more"]), unique=True, max_size=3)
    arguments = {name: f"with {name}" for name in draw(some)}
    lazy = "from __future__ import annotations\n" if is_lazy else ""
    typing = "from typing import TYPE_CHECKING, Annotated, Any, Optional"
    header = f"{lazy}{typing}\n{imported}\nDEFAULT = 'a default'\nOrder = str"
    return Case(header, draw(st.booleans()), tuple(parameters), arguments, tuple(draw(some)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the import path, with modules that the handlers import from."""
    folder = tmp_path_factory.mktemp("calls")
    (folder / "reexports.py").write_text("from runner import Message as Envelope\nSent = Envelope\n")
    (folder / "foreign.py").write_text("class Message:\n    text: str\n")
    sys.path.insert(0, str(folder))
    before = set(sys.modules)
    yield folder
    sys.path.remove(str(folder))
    for name in set(sys.modules) - before:
        del sys.modules[name]


NUMBERS = itertools.count()


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_what_is_accepted_is_called_as_it_was_meant(folder: Path, case: Case) -> None:
    """Each parameter gets what is meant, or its default; and the static check never refuses what an import accepts."""
    module = f"calls_{next(NUMBERS)}"
    (folder / f"{module}.py").write_text(case.source)
    importlib.invalidate_caches()
    path = f"{module}:handle"
    call = import_callable(path)
    try:
        handler = read_handler(path, call, case.arguments, takes_payload=True, resources=case.resources)
    except (ImportProblem, BadArguments):
        return
    static_checks.check_handler(path, case.arguments, takes_payload=True, resources=case.resources)
    assert asyncio.run(_called(handler)) == [_meant(case)], case.source


async def _called(handler: Handler) -> Any:
    """Return what a handler returns that is called as a subscriber's is."""
    subscriber = Subscriber("s", "q", (), None, handler, (), 1, 1, None, RetryPolicy())
    invoker = HandlerInvoker(subscriber, dict.fromkeys(handler.resources, RESOURCE))
    try:
        return await invoker.invoke(PAYLOAD, Message("message") if handler.message_parameter else None)
    finally:
        invoker.close()


def _meant(case: Case) -> dict[str, Any]:
    """Return what each parameter must get, by the rules of the language alone."""
    is_ours = case.header.count("from foreign") == case.header.count("class Message") == 0
    meant: dict[str, Any] = {}
    is_payload_given = False
    for item in case.parameters:
        is_message = is_ours and any(name in item.annotation for name in ("Message", "Envelope", "Sent"))
        if item.kind == "args":
            meant["args"] = () if is_payload_given else (PAYLOAD,)
            is_payload_given = True
        elif item.kind == "kwargs":
            known = {other.name for other in case.parameters if other.kind not in ("args", "kwargs")}
            meant["kwargs"] = {name: value for name, value in case.arguments.items() if name not in known}
        elif item.name in case.arguments:
            meant[item.name] = case.arguments[item.name]
        elif is_message:
            meant[item.name] = Message("message")
        elif item.name in case.resources:
            meant[item.name] = RESOURCE
        elif item.kind != "named" and not is_payload_given:
            meant[item.name] = PAYLOAD
            is_payload_given = True
        else:
            meant[item.name] = DEFAULT
    return meant
