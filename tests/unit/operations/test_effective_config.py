"""What `runner config` prints: it is the same pipeline, it says everything, and it gives no secret away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings

from runner.config.loader import PipelineFile, load, load_text
from runner.operations.effective_config import effective_config
from runner.units import parse_duration
from tests.process import ROOT
from tests.unit.operations.written_pipelines import pipelines


def read(text: str, environ: Mapping[str, str] | None = None, path: Path = Path("pipeline.yaml")) -> PipelineFile:
    loaded = load_text(text, path, environ or {})
    assert [problem.message for problem in loaded.problems] == []
    return loaded


def printed(loaded: PipelineFile, *, origins: bool = False) -> str:
    assert loaded.spec is not None
    return effective_config(loaded, loaded.spec, origins=origins)


def meaning(loaded: PipelineFile) -> dict[str, Any]:
    """Return all that a pipeline says, whatever its file is called, and without what has been merged already."""
    assert loaded.spec is not None
    return {**loaded.spec.model_dump(exclude={"defaults", "include"}), "name": loaded.name}


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(pipelines())
def test_what_is_printed_is_the_same_pipeline(written: dict[str, Any]) -> None:
    """Reading, printing and reading again changes nothing, for every key of the language."""
    loaded = load_text(json.dumps(written, ensure_ascii=False), Path("pipeline.yaml"), {})
    assume(loaded.spec is not None)
    for origins in (False, True):
        again = read(printed(loaded, origins=origins), path=Path("elsewhere.yaml"))
        assert meaning(again) == meaning(loaded)
        assert printed(again) == printed(loaded)


@pytest.mark.parametrize("name", ["orders", "order_placed", "fulfilment", "back_office"])
def test_the_examples_are_the_same_when_printed(name: str) -> None:
    """Reading, printing and reading again changes nothing."""
    loaded = load(ROOT / "pipelines" / f"{name}.yaml", {})
    assert meaning(read(printed(loaded))) == meaning(loaded)


def test_everything_is_said_in_the_order_of_the_language() -> None:
    """Short forms are written out, defaults filled in, durations and sizes in units."""
    text = printed(
        read("""
version: 1
subscribers:
  work: {handler: "a:b", from: q, retry: 5, timeout: 90s}
queues: {q: {max_bytes: 1536kB}}
""")
    )
    top = [line.split(":")[0] for line in text.splitlines() if not line.startswith(" ")]
    assert top == ["version", "name", "broker", "queues", "subscribers", "logging", "shutdown"]
    found = yaml.safe_load(text)
    assert found["name"] == "pipeline"
    assert found["broker"] == {"url": "memory", "connect_timeout": "1m", "heartbeat": "10s", "topology": "manage"}
    assert found["queues"]["q"]["max_bytes"] == "1500KiB"
    assert list(found["subscribers"]["work"])[:2] == ["from", "handler"]
    assert found["subscribers"]["work"]["retry"] == {
        "attempts": 5,
        "backoff": "exponential",
        "delay": "1s",
        "max_delay": "5m",
    }
    assert parse_duration(found["subscribers"]["work"]["timeout"]) == 90


def test_a_default_that_cannot_stand_beside_what_is_written_is_left_out() -> None:
    """`match` needs `headers`: without them even its default would be an error."""
    text = printed(read("version: 1\nexchanges: {e: topic}\nqueues: {q: {bind: [{exchange: e, key: a}]}}\n"))
    assert "match" not in text
    text = printed(read("version: 1\nexchanges: {e: headers}\nqueues: {q: {bind: [{exchange: e, headers: {a: 1}}]}}\n"))
    assert "match: all" in text


def test_a_section_that_says_nothing_is_left_out() -> None:
    """Also where it is written; what it says is printed."""
    for written in ("", "telemetry: {}\n", "telemetry:\n"):
        assert "telemetry" not in printed(read(f"version: 1\n{written}"))
    assert 'telemetry:\n  http: "127.0.0.1:9090"\n' in printed(
        read('version: 1\ntelemetry: {http: "127.0.0.1:9090"}\n')
    )


# Origins


def origins(text: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the comment behind each key, by the key."""
    lines = [line.strip().split("  # ") for line in printed(read(text, environ), origins=True).splitlines()]
    return {line[0].split(":")[0]: line[-1].strip() for line in lines if len(line) > 1}


def test_each_value_says_where_it_comes_from() -> None:
    """The file and line, the variable, the defaults, or `default`."""
    found = origins(
        """version: 1
defaults:
  subscriber:
    timeout: 10s
queues: {q: }
subscribers:
  work:
    from: q
    handler: a:b
    concurrency: ${N:-4}
    retry: 5
""",
    )
    assert found["version"] == "pipeline.yaml:1"
    assert found["timeout"] == "pipeline.yaml:4 (defaults)"
    assert found["from"] == "pipeline.yaml:8"
    assert found["concurrency"] == "pipeline.yaml:10 (${N})"
    assert found["attempts"] == "pipeline.yaml:11"
    assert (found["delay"], found["name"], found["grace"]) == ("default", "default", "default")


def test_a_value_from_an_included_file_says_so(tmp_path: Path) -> None:
    """The comment names the file that the value stands in."""
    (tmp_path / "more.yaml").write_text("queues:\n  q: {max_length: 5}\n")
    text = "version: 1\ninclude: [more.yaml]\n"
    found = printed(read(text, path=tmp_path / "pipeline.yaml"), origins=True)
    (line,) = [line for line in found.splitlines() if "max_length" in line]
    assert line.endswith("more.yaml:2")
    assert "include:" not in found


# Secrets

SECRETS = {"PASSWORD": "S3CR3T", "URL": "amqp://app:S3CR3T@rabbit/shop", "TEXT": "S3CR3T", "PLAIN": "visible"}


@pytest.mark.parametrize(
    "text",
    [
        "broker: amqp://app:S3CR3T@rabbit",
        "broker: ${URL}",
        "broker: amqp://app:${PASSWORD}@rabbit",
        "broker: {urls: ['${URL}', 'amqp://app:S3CR3T@other']}",
        "producers: {p: {handler: 'a:b', to: q, with: {password: '${TEXT}'}}}",
        "producers: {p: {handler: 'a:b', to: q, with: {apiKey: S3CR3T}}}",
        "producers: {p: {handler: 'a:b', to: q, with: {credentials: {user: ada, value: S3CR3T}}}}",
        "producers: {p: {handler: 'a:b', to: q, with: {key: '${TEXT}'}}}",
        "producers: {p: {handler: 'a:b', to: q, with: {anything: '${PASSWORD}'}}}",
        "producers: {p: {handler: 'a:b', to: q, with: {anything: 'x ${file:secret} y'}}}",
        "producers: {p: {handler: 'a:b', to: q, with: {tokens: [S3CR3T]}}}",
        "producers: {p: {handler: 'a:b', to: q, with: {dsn: 'host=db password=S3CR3T user=ada'}}}",
        "producers: {p: {handler: 'a:b', to: q, with: {dsn: '${URL}'}}}",
        "producers: {p: {handler: 'a:b', to: q, with: {url: 'https://x/?token=S3CR3T&a=b'}}}",
        "queues: {q: {arguments: {x-secret: '${TEXT}'}}}",
        "owner: ${file:secret}",
        "broker: {url: amqps://localhost, tls: {cert: c.pem, key: '${file:secret}'}}",
    ],
)
def test_no_secret_is_printed(text: str, tmp_path: Path) -> None:
    """Not a password of a URL, not what is called a secret, not what comes from a file; and the rest can be read."""
    (tmp_path / "secret").write_text("S3CR3T\n")
    loaded = read(f"version: 1\n{text}\n", SECRETS, tmp_path / "pipeline.yaml")
    for origins in (False, True):
        found = printed(loaded, origins=origins)
        assert "S3CR3T" not in found
        assert "***" in found
        read(found)


@pytest.mark.parametrize(
    "other",
    [
        "header: 'Bearer ${TEXT}'",
        "header: 'Bearer S3CR3T'",
        "parts: [a, {b: '${TEXT}'}]",
        "url: 'https://x/?q=S3CR3T'",
    ],
)
@pytest.mark.parametrize("is_before", [True, False])
def test_what_is_secret_once_is_secret_everywhere(other: str, is_before: bool) -> None:
    """The value is masked before and after its secret place, by variable or by text, also in generated texts."""
    secret = "token: '${TEXT}'"
    items = ", ".join([other, secret] if is_before else [secret, other])
    text = f"version: 1\nowner: 'knows ${{TEXT}}'\nproducers: {{p: {{handler: 'a:b', to: q, with: {{{items}}}}}}}\n"
    found = printed(read(text + "queues: {q: }\n", SECRETS))
    assert "S3CR3T" not in found
    assert found.count("***") == 3


def test_the_password_of_a_url_is_secret_elsewhere() -> None:
    """A short one only as a word of its own; another variable of the same value stands for the same secret."""
    text = "broker: 'amqp://app:${PASSWORD}@rabbit'\nqueues: {q: }\n"
    text += "producers: {p: {handler: 'a:b', to: q, with: {one: 'is ${OTHER}', two: 'cabs', three: '${HOST}'}}}\n"
    variables = {"PASSWORD": "cab", "OTHER": "cab", "HOST": "visible"}
    found = yaml.safe_load(printed(read(f"version: 1\n{text}", variables)))
    assert found["producers"]["p"]["with"] == {"one": "is ***", "two": "cabs", "three": "visible"}


def test_a_variable_beside_a_secret_one_is_not_secret() -> None:
    """Only what is called so, where one of several is."""
    options = "{dsn: '${PLAIN} ${PASSWORD}', folder: '${PLAIN}'}"
    text = f"queues: {{q: }}\nproducers: {{p: {{handler: 'a:b', to: q, with: {options}}}}}\n"
    found = yaml.safe_load(printed(read(f"version: 1\n{text}", SECRETS)))
    assert found["producers"]["p"]["with"] == {"dsn": "***", "folder": "visible"}


def test_what_is_no_secret_is_printed() -> None:
    """A variable by itself hides nothing, and neither does the key of a binding."""
    text = printed(
        read(
            """
version: 1
name: ${PLAIN}
exchanges: {erp: topic}
queues: {q: {bind: [{exchange: erp, key: "${PLAIN}"}]}}
producers: {p: {handler: "a:b", to: q, with: {folder: "${PLAIN}", key: plain, max_tokens: 5}}}
""",
            SECRETS,
        )
    )
    assert "***" not in text
    found = yaml.safe_load(text)
    assert found["name"] == "visible"
    assert found["queues"]["q"]["bind"][0]["key"] == "visible"
    assert found["producers"]["p"]["with"] == {"folder": "visible", "key": "plain", "max_tokens": 5}
