"""What `validate` calls valid runs: pipelines with odd names, handlers, arguments and results, on each broker.

Each example is one pipeline with several subscribers. `validate` may refuse some of them; they are taken out. What is
left must run: each handler gets what its parameters ask for, and each message is handled, or is a dead letter where its
result cannot be published.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.project import MEMORY, Place, Project

PRELUDE = """
from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import json
import typing
import uuid
from typing import Annotated, Any, Optional

import pydantic

from runner import Message, Publish


class Order(pydantic.BaseModel):
    id: int


@dataclasses.dataclass
class Row:
    id: int


class Item(pydantic.BaseModel):
    token: pydantic.SecretStr = pydantic.SecretStr("s3cret")


def open_db():
    return "db"


def tell(number, **got):
    note(json.dumps({"number": number, **{name: type(value).__name__ for name, value in got.items()}}))


def hear(payload, message: Message):
    note(json.dumps({"sink": message.headers.get("from"), "payload": repr(payload)}))


class Traced:
    def __init__(self, call):
        self.call = call
        functools.update_wrapper(self, call)

    def __call__(self, *args, **kwargs):
        return self.call(*args, **kwargs)


def traced(call):
    @functools.wraps(call)
    def wrapper(*args, **kwargs):
        return call(*args, **kwargs)

    return wrapper
"""

PAYLOADS = {  # annotation: what is produced, and the name of the type that the handler gets
    "": ('{"id": 1}', "dict"),
    ": dict": ('{"id": 1}', "dict"),
    ": Order": ('{"id": 1}', "Order"),
    ": 'Order'": ('{"id": 1}', "Order"),
    ": Row": ('{"id": 1}', "Row"),
    ": Order | None": ('{"id": 1}', "Order"),
    ": Annotated[Order, 'x']": ('{"id": 1}', "Order"),
    ": str": ('"订单编号: 12345"', "str"),
    ": bytes": ('b"\\xff\\x00"', "bytes"),
    ": list[int]": ("[1, 2]", "list"),
    ": int": ("7", "int"),
    ": Any": ('{"id": 1}', "dict"),
}
MESSAGES = {  # what stands in the signature for the message
    "message: Message": "Message",
    "message: Message | None": "Message",
    "message: Optional[Message]": "Message",
    "message: Annotated[Message, 'x']": "Message",
    "message: 'Message'": "Message",
}
ARGUMENTS = {  # a parameter: what `with:` passes, and the type that arrives
    "limit: int": ("ten", None),  # refused, or the whole subscriber is
    "count: int": ("10", "int"),
    "dry_run: bool": ('"false"', "bool"),
    "ratio: float": ("1.5", "float"),
    "carrier: str": ("dhl", "str"),
    "tags: list[str]": ("[a, b]", "list"),
    "anything": ("{a: 1}", "dict"),
}
GOOD = {  # a result that can be published: how many messages it becomes at `to`
    "None": 0,
    "{'a': 1}": 1,
    "'text'": 1,
    "b'bytes'": 1,
    "[1, 2]": 1,
    "Order(id=2)": 1,
    "Item()": 1,
    "decimal.Decimal('1.5')": 1,
    "{uuid.UUID(int=1): datetime.datetime(1960, 1, 1)}": 1,
    "Publish({'a': 1}, headers={'from': 'x'})": 1,
    "[Publish(1), Publish(2)]": 2,
    "(Publish(1),)": 1,
    "iter([Publish(1), Publish(2)])": 2,
}
BAD = (
    "object()",
    "{'a': Publish(1)}",
    "[1, Publish(2)]",
    "Publish(Publish(1))",
    "Publish(1, to='nowhere')",
    "lambda: 1",
)
WRAPPERS = ("{}", "Traced({})", "traced({})", "functools.partial({})")

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="*#\ufeff"),
    min_size=1,
    max_size=20,
)


@dataclass(frozen=True)
class Case:
    """One subscriber: its signature, how it runs, and what it returns."""

    name: str
    annotation: str
    message: str
    arguments: tuple[str, ...]
    has_resource: bool
    order: tuple[int, ...]
    is_async: bool
    yields: bool
    wrapper: str
    result: str
    is_keyword_only: bool

    def parameters(self) -> str:
        """Return the signature, in the order that was drawn; keyword-only parameters behind a star."""
        own = [f"payload{self.annotation}", *([self.message] if self.message else []), *self.arguments]
        own += ["db"] if self.has_resource else []
        drawn = [own[index] for index in self.order if index < len(own)]
        if self.is_keyword_only:
            rest = [item for item in drawn if not item.startswith("payload")]
            drawn = [item for item in drawn if item.startswith("payload")] + (["*", *rest] if rest else [])
        return ", ".join(drawn)

    def source(self, number: int) -> str:
        """Return the handler's source: it tells what it got, then gives its result."""
        got = ["payload", *(["message"] if self.message else []), *(["db"] if self.has_resource else [])]
        got += [re.split(r"\W", item)[0] for item in self.arguments]
        told = ", ".join(f"{name}={name}" for name in got)
        give = "yield" if self.yields else "return"
        define = "async def" if self.is_async else "def"
        lines = [f"{define} handler_{number}({self.parameters()}):", f"    tell({number}, {told})"]
        lines += [f"    {give} {self.result}", f"work_{number} = {self.wrapper.format(f'handler_{number}')}"]
        return "\n".join(lines)

    def expected(self) -> dict[str, str]:
        """Return the names of the types that the handler gets."""
        kinds = {"payload": PAYLOADS[self.annotation][1], **({"message": "Message"} if self.message else {})}
        kinds |= {"db": "str"} if self.has_resource else {}
        return kinds | {re.split(r"\W", item)[0]: str(ARGUMENTS[item][1]) for item in self.arguments}

    @property
    def published(self) -> int | None:
        """How many messages its result becomes; None where it cannot be published."""
        is_inner_iterator = self.yields and self.result.startswith("iter")
        return None if is_inner_iterator else GOOD.get(self.result)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw one subscriber."""
    arguments = tuple(draw(st.lists(st.sampled_from(sorted(ARGUMENTS)), unique=True, max_size=2)))
    return Case(
        name=draw(NAMES),
        annotation=draw(st.sampled_from(sorted(PAYLOADS))),
        message=draw(st.sampled_from(["", *MESSAGES])),
        arguments=arguments,
        has_resource=draw(st.booleans()),
        order=tuple(draw(st.permutations(range(5)))),
        is_async=draw(st.booleans()),
        yields=draw(st.booleans()),
        wrapper=draw(st.sampled_from(WRAPPERS)),
        result=draw(st.sampled_from([*GOOD, *BAD])),
        is_keyword_only=draw(st.booleans()),
    )


def written(found: dict[int, Case], unique: str) -> dict[str, Any]:
    """Return the pipeline of these subscribers, each behind a queue of its own, as data."""
    queues: dict[str, Any] = {f"{unique}.{number}.{case.name}": {} for number, case in found.items()}
    names = dict(zip(found, queues, strict=True))
    with_ = {
        number: {re.split(r"\W", item)[0]: ARGUMENTS[item][0] for item in case.arguments}
        for number, case in found.items()
    }
    return {
        "version": 1,
        "queues": {**queues, f"{unique}.结果": {}},
        "resources": {"db": "work:open_db"},
        "producers": {f"p{number}": {"handler": f"work:make_{number}", "to": names[number]} for number in found},
        "subscribers": {
            "hear": {"from": f"{unique}.结果", "handler": "work:hear"},
            **{
                f"s{number}": {
                    "from": names[number],
                    "handler": f"work:work_{number}",
                    "to": f"{unique}.结果",
                    "retry": "none",
                    **({"with": with_[number]} if with_[number] else {}),
                }
                for number in found
            },
        },
    }


def yaml_of(data: dict[str, Any]) -> str:
    """Return the pipeline as text: JSON is YAML; what `with:` passes is written as a person writes it."""
    text = json.dumps(data, ensure_ascii=False, indent=1)
    for item, (value, _) in ARGUMENTS.items():
        name = re.split(r"\W", item)[0]
        text = text.replace(f'"{name}": {json.dumps(value)}', f'"{name}": {value}')
    return text


def refused(output: str, unique: str) -> set[int]:
    """Return the numbers of the subscribers that `validate --format json` refuses, or whose queues it refuses."""
    errors = [problem for problem in json.loads(output) if problem["severity"] == "error"]
    named = (f"{problem['path']} {problem['message']}" for problem in errors)
    found = {re.search(rf"subscribers\.s(\d+)\b|{unique}\.(\d+)\.", text) for text in named}
    assert None not in found, errors
    return {int(match[1] or match[2]) for match in found if match}


async def valid_part(project: Project, found: dict[int, Case]) -> dict[int, Case]:
    """Write the pipeline without what `validate` refuses, and return what is left."""
    for _ in range(2):
        project.pipeline(yaml_of(written(found, project.unique)))
        async with project.run("validate", "--format", "json", project.file) as validating:
            code = await validating.wait()
        assert code in (0, 78), validating.stderr
        if code == 0:
            return found
        wrong = refused(validating.stdout, project.unique)
        found = {number: case for number, case in found.items() if number not in wrong}
    raise AssertionError(f"refused again: {validating.stdout}")


async def check_run(project: Project, found: dict[int, Case]) -> None:
    """Run what is valid to its end, and hold it against what was meant."""
    runner = await project.up_until_idle()
    told = [json.loads(entry) for entry in project.ledger.payloads()]
    dead = [line for line in runner.logs if line["event"] == "message.dead_lettered"]
    for number, case in found.items():
        got = [{k: v for k, v in entry.items() if k != "number"} for entry in told if entry.get("number") == number]
        assert got == [case.expected()], (case, case.source(number), got, dead)
        is_dead = any(line["subscriber"] == f"s{number}" for line in dead)
        assert is_dead == (case.published is None), (case, case.source(number), dead)
    heard = [entry["payload"] for entry in told if "sink" in entry]
    assert len(heard) == sum(case.published or 0 for case in found.values()), (heard, found)
    assert not [payload for payload in heard if "'headers'" in payload or "***" in payload]


def project_for(folder: Path, place: Place, found: dict[int, Case], unique: str) -> Project:
    """Return a project with the handlers of these subscribers."""
    project = Project(folder, unique, place)
    made = [f"def make_{number}(): yield {PAYLOADS[case.annotation][0]}" for number, case in found.items()]
    sources = [case.source(number) for number, case in found.items()]
    # The module's own lines come first: `from __future__` must.
    (folder / "work.py").write_text("\n\n".join([PRELUDE + "\nfrom ledger_of_handlers import note", *made, *sources]))
    return project


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each broker; on RabbitMQ a virtual host of this test's own, since any name may be drawn."""
    if request.param == "memory":
        return MEMORY
    place: Place = request.getfixturevalue("vhost")
    return place


@pytest.mark.timeout(300)
@settings(
    phases=[Phase.generate],
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(drawn=st.lists(cases(), min_size=8, max_size=12))
def test_what_is_valid_runs(place: Place, drawn: list[Case]) -> None:
    """Each example starts three processes, so that a failure is not made smaller: it names its subscriber."""

    async def run() -> None:
        numbered = dict(enumerate(drawn))
        unique = f"t{uuid4().hex[:8]}"
        with tempfile.TemporaryDirectory() as folder:
            project = project_for(Path(folder), place, numbered, unique)
            found = await valid_part(project, numbered)
            assert len(found) > len(drawn) // 3, "too much is refused for this test to say anything"
            await check_run(project, found)

    asyncio.run(run())
