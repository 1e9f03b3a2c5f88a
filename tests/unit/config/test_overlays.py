"""`--overlay` and `--set`: what they change, where their problems are reported, and which pipelines they are for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from runner.config import diagnostics
from runner.config.loader import PipelineFile, load, load_all
from runner.config.overlays import Overlay, Setting, parse_setting
from runner.config.spec import PipelineSpec
from runner.config.target_spec import target_names
from runner.errors import PipelineInvalid
from runner.operations.effective_config import effective_config
from runner.operations.fixes import apply_fixes
from tests.unit.operations.written_pipelines import pipelines

BASE = """\
version: 1
broker: ${RABBITMQ_URL}
queues:
  orders: {max_length: 5, events: [order.paid]}
events: {order.paid: "m:Paid"}
subscribers:
  ship: {from: orders, handler: "m:ship", retry: 3, to: order.paid}
  log: {from: order.paid, handler: "m:log"}
"""
URL = {"RABBITMQ_URL": "amqp://u:p@rabbit"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    return tmp_path


def read(*overlays: str, environ: Mapping[str, str] = URL) -> PipelineFile:
    """Return the base with overlays: texts of files, and `--set` options, which have no space before their "="."""
    return load(Path("base.yaml"), environ, given_as(overlays))


def given_as(overlays: Sequence[str]) -> list[Overlay]:
    found: list[Overlay] = []
    for number, text in enumerate(overlays):
        if text.startswith("--set "):
            found.append(Setting(text.removeprefix("--set ")))
        else:
            path = Path(f"overlay{number}.yaml")
            path.write_text(text)
            found.append(path)
    return found


def spec(*overlays: str, environ: Mapping[str, str] = URL) -> PipelineSpec:
    loaded = read(*overlays, environ=environ)
    assert diagnostics.concise(loaded.problems) == ""
    assert loaded.spec is not None
    return loaded.spec


def said(*overlays: str, environ: Mapping[str, str] = URL) -> str:
    return diagnostics.concise(read(*overlays, environ=environ).problems)


def test_maps_are_merged_lists_and_values_replace_and_null_removes() -> None:
    changed = spec(
        "queues:\n  orders: {max_length: null, type: classic, events: ['order.*']}\n"
        "subscribers: {log: null, ship: {concurrency: 9}}\n"
    )
    queue, ship = changed.queues["orders"], changed.subscribers["ship"]
    assert (queue.max_length, queue.type, queue.events) == (None, "classic", ("order.*",))
    assert (ship.concurrency, ship.handler, list(changed.subscribers)) == (9, "m:ship", ["ship"])


def test_later_overlays_win_and_settings_come_last_as_they_are_given() -> None:
    changed = spec(
        "subscribers: {ship: {concurrency: 2, timeout: 2s}}",
        "subscribers: {ship: {concurrency: 3}}",
        "--set subscribers.ship.concurrency=4",
        "--set subscribers.ship.concurrency=5",
    )
    assert (changed.subscribers["ship"].concurrency, changed.subscribers["ship"].timeout) == (5, 2.0)


def test_a_short_form_counts_as_the_map_that_it_stands_for() -> None:
    changed = spec(
        "broker: {heartbeat: 5s}\nevents: {order.paid: {unheard: ignore}}\nsubscribers: {ship: {retry: {delay: 2s}}}\n"
    )
    assert (changed.broker.urls, changed.broker.heartbeat) == (("amqp://u:p@rabbit",), 5.0)
    assert (changed.events["order.paid"].schema_, changed.events["order.paid"].unheard) == ("m:Paid", "ignore")
    assert (changed.subscribers["ship"].retry.attempts, changed.subscribers["ship"].retry.delay) == (3, 2.0)


def test_two_spellings_of_one_key_replace_each_other() -> None:
    assert spec("broker: {urls: [amqp://u:p@a, amqp://u:p@b]}", "--set broker.url=amqp://u:p@c").broker.urls == (
        "amqp://u:p@c",
    )


def test_a_variable_in_a_replaced_value_need_not_be_set() -> None:
    assert spec("--set broker=memory", environ={}).broker.urls == ()
    assert "unset-variable" in said("--set name=shop", environ={})


def test_variables_anchors_and_includes_work_in_overlays_as_in_files() -> None:
    Path("parts").mkdir()
    Path("parts/limits.yaml").write_text("subscribers: {ship: {concurrency: 2, prefetch: 50, timeout: 1s}}\n")
    changed = spec(
        "include: parts/*.yaml\n"
        "x-slow: &slow {timeout: '${SLOW}'}\n"
        "subscribers: {ship: {<<: *slow, concurrency: 7}, log: *slow}\n",
        "--set name=${NAME:-shop}",
        environ={**URL, "SLOW": "9s"},
    )
    ship = changed.subscribers["ship"]
    assert (ship.concurrency, ship.prefetch, ship.timeout, changed.subscribers["log"].timeout) == (7, 50, 9.0, 9.0)
    assert changed.name == "shop"


def test_new_items_get_the_defaults_of_the_pipeline_and_defaults_can_be_changed() -> None:
    Path("base.yaml").write_text(BASE + "defaults: {subscriber: {timeout: 3s, concurrency: 4}}\n")
    changed = spec("defaults: {subscriber: {timeout: 5s}}\nsubscribers: {new: {from: orders, handler: 'm:new'}}\n")
    assert {(each.timeout, each.concurrency) for each in changed.subscribers.values()} == {(5.0, 4)}


def test_an_item_of_an_included_file_is_changed_there() -> None:
    Path("parts").mkdir()
    Path("parts/more.yaml").write_text(
        "defaults: {subscriber: {timeout: 3s}}\n"
        "subscribers: {audit: {from: orders, handler: 'm:audit'}}\n"
        "producers: {fill: {file: rows.csv, to: orders}}\n"
    )
    Path("base.yaml").write_text(BASE + "include: parts/more.yaml\n")
    changed = spec("subscribers: {audit: {concurrency: 2}}\nproducers: {fill: {file: data/prod.csv}}\n")
    assert (changed.subscribers["audit"].concurrency, changed.subscribers["audit"].timeout) == (2, 3.0)
    assert os.path.normpath(changed.producers["fill"].file or "") == "data/prod.csv"
    assert "audit" not in spec("subscribers: {audit: null}").subscribers


def test_paths_in_an_overlay_are_relative_to_it() -> None:
    Path("deploy").mkdir()
    Path("deploy/prod.yaml").write_text(
        "python_path: lib\nbroker: {url: 'amqps://u:p@rabbit', tls: {ca: ca.pem}}\n"
        "producers: {fill: {file: rows.csv, to: orders}}\n"
    )
    changed = load(Path("base.yaml"), URL, [Path("deploy/prod.yaml")]).spec
    assert changed is not None
    assert changed.broker.tls is not None
    assert (changed.python_path, changed.broker.tls.ca) == (("deploy/lib",), "deploy/ca.pem")
    assert changed.producers["fill"].file == "deploy/rows.csv"


def test_an_empty_value_changes_nothing_and_adds_a_queue_as_in_a_pipeline() -> None:
    loaded = read("queues:\n  orders:\n  audit:\nsubscribers:\n  # ship: {concurrency: 2}\nbroker:\n")
    assert [(problem.severity, problem.path) for problem in loaded.problems] == [("warning", "queues.orders")]
    changed = loaded.spec
    assert changed is not None
    assert (changed.queues["orders"].max_length, list(changed.queues)) == (5, ["orders", "audit"])
    assert len(changed.subscribers) == 2


def test_a_shared_node_is_changed_where_it_is_named_only() -> None:
    Path("base.yaml").write_text(
        "version: 1\nqueues: {a: &one {max_length: 5}, b: *one}\n"
        "subscribers: {s: {from: a, handler: 'm:s'}, t: {from: b, handler: 'm:t'}}\n"
    )
    changed = spec("--set queues.a.max_length=6")
    assert (changed.queues["a"].max_length, changed.queues["b"].max_length) == (6, 5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("description=true", "true"),
        ('description="7"', "7"),
        ("description='a # b'", "a # b"),
        ("description=a=b", "a=b"),
        ('description="a: b"', "a: b"),
        ('description=""', ""),
        ("description=${RABBITMQ_URL}!", "amqp://u:p@rabbit!"),
        ("description=$${X}", "${X}"),
        ('"description"=é', "é"),
    ],
)
def test_the_value_of_a_setting_is_yaml(setting: str, value: str) -> None:
    if setting == "description=true":
        assert "must be text" in said(f"--set {setting}")
    else:
        assert spec(f"--set {setting}").description == value


def test_keys_with_dots_are_quoted_and_values_may_be_maps_and_lists() -> None:
    changed = spec(
        '--set events."order.paid".unheard=ignore',
        "--set events.'order.lost'={schema: \"m:Lost\", unheard: ignore}",
        "--set subscribers.ship.to=[order.paid, order.lost]",
    )
    assert changed.events["order.lost"].schema_ == "m:Lost"
    assert target_names(changed.subscribers["ship"].to) == ("order.paid", "order.lost")


@pytest.mark.parametrize(
    ("overlay", "problem"),
    [
        (
            "--set subscribers.shp.concurrency=20",
            '--set subscribers.shp.concurrency: error[unknown-item] subscribers.shp: there is no subscriber "shp"; '
            'did you mean "ship"?',
        ),
        (
            "subscribers:\n  shp:\n    concurrency: 20\n",
            'overlay0.yaml:2:3: error[unknown-item] subscribers.shp: there is no subscriber "shp"; '
            'did you mean "ship"?',
        ),
        (
            "--set events.order.paid.unheard=ignore",
            '--set events.order.paid.unheard: error[unknown-item] events.order: there is no event "order"; '
            'a name with dots needs quotes: events."order.paid"',
        ),
        (
            "subscribers: {shp: null}",
            'overlay0.yaml:1:15: error[nothing-to-remove] subscribers.shp: there is no subscriber "shp"; '
            'did you mean "ship"?',
        ),
        (
            "queues: {orders: {max_lenght: null}}",
            "overlay0.yaml:1:19: error[nothing-to-remove] queues.orders.max_lenght: there is no "
            '"max_lenght" to remove; did you mean "max_length"?',
        ),
        (
            "pipeline: bse\nname: other\n",
            'overlay0.yaml:1:11: error[unknown-pipeline] pipeline: there is no pipeline "bse"; did you mean "base"?',
        ),
        (
            "subscribers: {ship: {concurency: 2}}",
            'overlay0.yaml:1:22: error[unknown-key] subscribers.ship: unknown key "concurency"; '
            'did you mean "concurrency"?',
        ),
        ("version: 2", "overlay0.yaml:1:10: error[bad-version] version: this version of the language is not known: "),
        ("# nothing\n", "overlay0.yaml:1:1: error[empty-file] the file is empty; write the keys that it changes"),
        ("--set name", "--set name: error[bad-set] this is not KEY=VALUE; write --set name=VALUE"),
        ("--set .name=x", "--set .name: error[bad-set] this is not KEY=VALUE"),
        ("--set name=", "--set name: error[bad-set] there is no value; write null to remove the key"),
        ("--set description=issue #5", '--set description: error[bad-set] "#" starts a comment here'),
        ("--set queues=- a", "--set queues: error["),
        ("--set include=[more.yaml]", '--set include: error[bad-set] "include" cannot be set'),
        ("--set broker.url=amqp://u:pw@h/%zz", "--set broker.url: error[bad-url] broker.url: "),
        (f"--set {'.'.join('a' * 60)}=1", f"--set {'.'.join('a' * 60)}: error[bad-set] nested more than 50 deep"),
    ],
)
def test_a_problem_is_reported_where_the_overlay_or_the_option_says_it(overlay: str, problem: str) -> None:
    assert said(overlay).startswith(problem)
    assert len(said(overlay).splitlines()) == 1


def test_the_caret_is_under_the_wrong_part_of_an_option_and_its_password_is_not_shown() -> None:
    shown = diagnostics.full(read("--set subscribers.shp.concurrency=20").problems)
    assert "1 | --set subscribers.shp.concurrency=20\n  |                   ^^^\n" in shown
    loaded = read("--set broker={url: 'amqp://u:hunter2@h', password: hunter2}")
    for style in ("full", "concise", "json", "github"):
        text = diagnostics.render(loaded.problems, style)
        assert "conflicting-options" in text
        assert "hunter2" not in text


def test_fixes_are_written_into_the_overlay_and_an_option_is_left_to_its_author() -> None:
    overlays = given_as(["subscribers: {ship: {concurency: 2}}\n", "--set subscribers.ship.prefetsh=50"])
    left, _, count = apply_fixes(lambda: load(Path("base.yaml"), URL, overlays).problems)
    assert (count, [problem.path for problem in left]) == (1, ["subscribers.ship"])
    assert Path("overlay0.yaml").read_text() == "subscribers: {ship: {concurrency: 2}}\n"
    assert Path("base.yaml").read_text() == BASE


def test_an_overlay_that_cannot_be_read_is_named() -> None:
    Path("folder").mkdir()
    for name, code in (("nowhere.yaml", "no-such-file"), ("folder", "not-a-file")):
        (problem,) = load(Path("base.yaml"), URL, [Path(name)]).problems
        assert (problem.file, problem.code) == (name, code)


def test_an_index_is_not_a_key_of_a_list() -> None:
    assert "[bad-set] queues.orders.events: a list is replaced as a whole; write [one, two]" in said(
        "--set queues.orders.events.0=order.lost"
    )


# Several pipelines


def several(*overlays: str) -> list[PipelineFile]:
    Path("base.yaml").write_text(BASE.replace("${RABBITMQ_URL}", "amqp://u:p@one"))
    Path("bill.yaml").write_text(
        "version: 1\nqueues: {bills: }\n"
        "subscribers: {bill: {from: bills, handler: 'm:bill'}, log: {from: bills, handler: 'm:log'}}\n"
    )
    return load_all([Path("base.yaml"), Path("bill.yaml")], {}, given_as(overlays))


def specs(*overlays: str) -> tuple[PipelineSpec, PipelineSpec]:
    base, bill = several(*overlays)
    assert [problem.message for loaded in (base, bill) for problem in loaded.problems] == []
    assert base.spec is not None
    assert bill.spec is not None
    return base.spec, bill.spec


def all_said(*overlays: str) -> str:
    problems = [problem for loaded in several(*overlays) for problem in loaded.problems]
    return diagnostics.concise(dict.fromkeys(problems))


def test_an_overlay_changes_each_pipeline_that_has_what_it_changes() -> None:
    base, bill = specs(
        "broker: amqp://u:p@prod\nsubscribers: {ship: {concurrency: 2}, bill: {concurrency: 3}, log: {concurrency: 4}}",
        "--set subscribers.bill.timeout=5s",
    )
    assert base.broker.urls == bill.broker.urls == ("amqp://u:p@prod",)
    assert {name: each.concurrency for name, each in base.subscribers.items()} == {"ship": 2, "log": 4}
    assert {name: each.concurrency for name, each in bill.subscribers.items()} == {"bill": 3, "log": 4}
    assert bill.subscribers["bill"].timeout == 5.0


def test_pipeline_selects_by_name_and_may_add_and_remove() -> None:
    base, bill = specs("pipeline: bill\nqueues: {audit: }\nsubscribers: {log: null}\nbroker: amqp://u:p@one\n")
    assert (list(base.queues), list(base.subscribers)) == (["orders"], ["ship", "log"])
    assert (list(bill.queues), list(bill.subscribers)) == (["bills", "audit"], ["bill"])
    base, bill = specs("pipeline: [bill, base]\nsubscribers: {log: {concurrency: 3}}\n")
    assert base.subscribers["log"].concurrency == bill.subscribers["log"].concurrency == 3


def test_what_an_overlay_includes_is_for_its_pipeline_only() -> None:
    Path("slow.yaml").write_text("shutdown: {grace: 9s}\nqueues: {audit: }\n")
    base, bill = specs("pipeline: bill\ninclude: slow.yaml\n")
    assert (base.shutdown.grace, list(base.queues)) == (30.0, ["orders"])
    assert (bill.shutdown.grace, list(bill.queues)) == (9.0, ["bills", "audit"])


@pytest.mark.parametrize(
    ("overlay", "problem"),
    [
        (
            "--set subscribers.bil.concurrency=20",
            'error[unknown-item] subscribers.bil: there is no subscriber "bil"; did you mean "bill"?',
        ),
        (
            "queues: {audit: }",
            'error[unknown-item] queues.audit: there is no queue "audit"; add "pipeline: NAME" to the overlay to say '
            "which pipeline gets it",
        ),
        ("pipeline: other", 'error[unknown-pipeline] pipeline: there is no pipeline "other"; write one of: base, bill'),
        ("pipeline: [base, bil]", 'there is no pipeline "bil"; did you mean "bill"?'),
        ("pipeline: {}", "error[unknown-pipeline] pipeline: must be the name of a pipeline, or a list"),
        ("pipeline: bill\nsubscribers: {ship: null}", "error[nothing-to-remove] subscribers.ship: there is no"),
    ],
)
def test_a_change_that_fits_no_pipeline_is_one_problem(overlay: str, problem: str) -> None:
    assert problem in all_said(overlay)
    assert len(all_said(overlay).splitlines()) == 1


def test_an_overlay_that_is_given_is_not_read_as_a_pipeline_of_its_folder() -> None:
    Path("prod.yaml").write_text("subscribers: {ship: {concurrency: 2}}\n")
    Path("staging.yaml").write_text("pipeline: base\nsubscribers: {ship: {concurrency: 3}}\n")
    (loaded,) = load_all([Path()], URL, [Path("prod.yaml")])
    assert (loaded.problems, loaded.files) == ([], (Path("base.yaml"), Path("prod.yaml")))


# Whole pipelines


@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(pipelines(), st.randoms(use_true_random=False))
def test_a_pipeline_in_two_parts_is_the_whole_pipeline(written: dict[str, Any], random: Any) -> None:
    """Whatever part of it an overlay holds, in whatever order: the printed configuration is that of one file."""
    whole = loaded_from(written)
    assume(whole.spec is not None)
    base, overlay = split(written, random)
    assume(base and overlay)
    Path("prod.yaml").write_text(json.dumps(shuffled(overlay, random), ensure_ascii=False))
    merged = loaded_from({"version": 1, **base}, [Path("prod.yaml")])
    assert diagnostics.concise(merged.problems) == ""
    assert in_any_order(merged) == in_any_order(whole)


def loaded_from(written: dict[str, Any], overlays: Sequence[Overlay] = ()) -> PipelineFile:
    Path("pipeline.yaml").write_text(json.dumps(written, ensure_ascii=False))
    return load(Path("pipeline.yaml"), {}, overlays)


def in_any_order(loaded: PipelineFile) -> list[str]:
    """Return the printed lines, each with the keys above it, without their order, which an overlay may change."""
    assert loaded.spec is not None
    lines: list[str] = []
    above: list[str] = []
    for line in effective_config(loaded, loaded.spec).splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], line.strip()]
        lines.append(" / ".join(above))
    return sorted(lines)


def split(written: dict[str, Any], random: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a base and an overlay that make the written map. What the overlay replaces is wrong in the base."""
    base: dict[str, Any] = {}
    overlay: dict[str, Any] = {}
    for key, value in written.items():
        if value is None or key == "<<" or random.random() < 0.3:
            base[key] = value  # in an overlay, null would remove
        elif isinstance(value, dict):
            base[key], overlay[key] = split(value, random)
        else:
            overlay[key] = value
            if random.random() < 0.5:
                base[key] = [{"replaced": "by the overlay"}]
    return base, overlay


def shuffled(value: Any, random: Any) -> Any:
    if not isinstance(value, dict):
        return value
    items = [(key, shuffled(item, random)) for key, item in value.items()]
    random.shuffle(items)
    return dict(items)


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        ("a.b=8,c.d=2", "write --set a.b=8 --set c.d=2"),
        ("subscribers[ship].concurrency=8", "write --set subscribers.ship.concurrency=8"),
        ("subscribers/ship/concurrency=8", "write --set subscribers.ship.concurrency=8"),
    ],
)
def test_a_setting_as_other_tools_write_it(text: str, help_: str) -> None:
    with pytest.raises(PipelineInvalid) as refused:
        parse_setting(text)
    assert [each.help for each in refused.value.problems] == [help_]


@pytest.mark.parametrize("text", ["a.b=[c.d=1,e.f=2]", 'a.b="x,c.d=2"', 'queues."a/b".type=classic', "a.b=1,2"])
def test_a_value_with_commas_and_a_name_with_a_slash_are_settings(text: str) -> None:
    parse_setting(text)
