"""The pipeline that a file of another tool becomes, with its names and values."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config import foreign_files
from runner.config.diagnostics import render
from runner.config.positions import Lines
from runner.config.validation import validate
from runner.config.yaml_parser import parse_yaml

CELERY = """\
broker_url: amqp://guest:guest@localhost//
task_acks_late: true
worker_concurrency: 8
tasks:
  ship: {queue: order_queue, handler: shop.handlers.ship, max_retries: 3, default_retry_delay: 5}
beat_schedule:
  place-orders: {task: shop.handlers.place_orders, schedule: 60.0, options: {queue: order_queue}}
"""
CELERY_IN_PYTHON = """\
from celery.schedules import crontab
app.conf.update(broker_url="amqp://shop:S3CR3T@rabbit//", task_routes={"app.ship": {"queue": "orders"}})
app.conf.beat_schedule = {"nightly": {"task": "app.report", "schedule": crontab(hour=3, minute=30)}}
"""
REDPANDA = """\
input:
  amqp_0_9: {urls: ["amqp://guest:guest@localhost:5672/"], queue: orders, prefetch_count: 10}
pipeline: {threads: 4}
output:
  amqp_0_9: {urls: ["amqp://guest:guest@localhost:5672/"], exchange: shop, key: order.paid}
"""
RASCAL = """\
vhosts:
  /:
    connection: {url: "amqp://guest:guest@localhost:5672/"}
    exchanges: [shop]
    queues: {orders: {options: {arguments: {x-message-ttl: 60000}}}}
    bindings: ["shop[order.*,parcel.#] -> orders"]
    publications: {place: {exchange: shop, routingKey: order.placed}}
    subscriptions: {ship: {queue: orders, prefetch: 10, retry: {min: 1000, max: 60000}}}
"""
DEFINITIONS = """\
{"rabbit_version": "4.0.5",
 "queues": [{"name": "orders", "vhost": "/", "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 5}}],
 "exchanges": [{"name": "shop", "vhost": "/", "type": "topic", "internal": false}],
 "bindings": [{"source": "shop", "destination": "orders", "routing_key": "order.*", "arguments": {}},
              {"source": "shop", "destination": "orders", "routing_key": "parcel.#", "arguments": {}}]}
"""
SAM = """\
AWSTemplateFormatVersion: "2010-09-09"
Resources:
  Orders:
    Type: AWS::SQS::Queue
    Properties: {QueueName: orders, RedrivePolicy: {deadLetterTargetArn: !GetAtt OrdersDead.Arn, maxReceiveCount: 5}}
  OrdersDead: {Type: AWS::SQS::Queue}
  Ship:
    Type: AWS::Serverless::Function
    Properties:
      Handler: shop.ship
      Timeout: 30
      Events: {Queue: {Type: SQS, Properties: {Queue: !GetAtt Orders.Arn, BatchSize: 10}}}
"""
CHANNELS = """\
asyncapi: 3.0.0
servers: {production: {host: "rabbit.example.com:5672", protocol: amqp}}
channels: {orderPlaced: {address: order.placed, messages: {placed: {payload: {required: [number]}}}}}
operations: {ship: {action: receive, channel: {$ref: "#/channels/orderPlaced"}}}
"""
NESTED = """\
input: {amqp_0_9: {urls: ["amqp://localhost:5672/"], queue: orders}}
output: {retry: {max_retries: 7, output: {amqp_0_9: {exchange: totals, key: order.total}}}}
"""
TOML = '[queues.orders]\nmax_length = 1000\n\n[subscribers.ship]\nfrom = "orders"\nhandler = "app:ship"\n'
INI = "[queue:orders]\nmax_length = 1000\n\n[subscriber:ship]\nqueue = orders\nhandler = app.ship\n"
ACTIONS = """\
name: shop
on:
  schedule: [{cron: "0 2 * * *"}]
jobs:
  report: {steps: [{uses: actions/checkout@v4}]}
  send: {needs: [report], timeout-minutes: 10}
"""
SERVERLESS = """\
service: shop
functions:
  process:
    handler: app.ship
    timeout: 30
    reservedConcurrency: 5
    events: [{sqs: {arn: "arn:aws:sqs:eu-central-1:1:orders"}}]
  nightly: {handler: app.report, events: [{schedule: cron(0 3 * * ? *)}]}
"""
DAPR = """\
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: order-subscription}
spec: {topic: orders, routes: {default: /orders}, deadLetterTopic: orders-failed}
"""
SPRING = """\
spring.rabbitmq.host=rabbit
spring.rabbitmq.username=shop
spring.rabbitmq.password=S3CR3T
spring.rabbitmq.listener.simple.prefetch=20
"""
LOGSTASH = 'input {\n  rabbitmq {\n    queue => "orders"\n    prefetch_count => 50\n  }\n}\noutput { stdout {} }\n'
ASYNCAPI = """\
asyncapi: 3.0.0
channels: {orders: {address: orders}}
operations:
  ship: {action: receive, channel: {$ref: "#/channels/orders"}}
  place: {action: send, channel: {$ref: "#/channels/orders"}}
"""
ROUTED = """\
asyncapi: 3.0.0
defaultContentType: application/json
channels:
  paid: {address: order.paid, bindings: {amqp: {is: routingKey, exchange: {name: shop}}}}
  parcels: {address: parcels, bindings: {amqp: {is: queue}}}
operations:
  ship: {action: receive, channel: {$ref: "#/channels/paid"}, bindings: {amqp: {deliveryMode: 2}}}
  book: {action: receive, channel: {$ref: "#/channels/paid"}}
  pack: {action: send, channel: {$ref: "#/channels/parcels"}}
"""
AIRFLOW = """\
dag_id: nightly
schedule: "0 3 * * *"
default_args: {retries: 2}
tasks:
  - {task_id: read, python_callable: app.read}
  - {task_id: report, python_callable: app.report, dependencies: [read]}
"""
KNATIVE = """\
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: ship}
spec:
  filter: {attributes: {type: order.placed}}
  delivery: {retry: 5, backoffPolicy: exponential, backoffDelay: PT2S}
"""
CELERY_IN_CAPITALS = """\
CELERY_BROKER_URL: amqp://localhost
CELERY_BEAT_SCHEDULE:
  nightly: {task: app.report, schedule: {crontab: {hour: 3, minute: 0}}}
  clean: {task: app.clean, schedule: {minutes: 5}}
"""
TERRAFORM = """\
resource "rabbitmq_queue" "orders" {
  name = "orders"
  settings {
    durable   = true
    arguments = { "x-message-ttl" : 60000 }
  }
}
"""
COMPOSE = """\
services:
  worker: {image: shop, environment: ["RABBITMQ_URL=amqp://shop:S3CR3T@rabbitmq:5672/"]}
"""
STATES = """\
StartAt: Ship
States:
  Ship: {Type: Task, Next: Bill, Retry: [{MaxAttempts: 2, IntervalSeconds: 5}]}
  Bill: {Type: Task, End: true}
"""
KUBERNETES = """\
apiVersion: shop.example.com/v1
kind: Pipeline
metadata: {name: shop}
spec:
  queues: [orders]
  subscribers: [{name: ship, queue: orders, handler: app.ship, retries: 3, timeout: 30}]
"""
TIMER = "[Timer]\nOnCalendar=Mon..Fri *-*-* 06:30:00\n[Install]\nWantedBy=timers.target\n"
CRONTAB = "# nightly\n30 3 * * 1-5 /usr/bin/python /srv/app.py report\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            CELERY,
            [
                "broker: amqp://localhost/",
                "  subscriber: {concurrency: 8}",
                "  place-orders: {handler: shop.handlers:place_orders, every: 60s, to: order_queue}",
                "  ship: {handler: shop.handlers:ship, from: order_queue, retry: {attempts: 4, delay: 5s}}",
            ],
        ),
        (
            CELERY_IN_PYTHON,
            [
                "broker: amqp://shop:***@rabbit/",
                "  nightly: {handler: app:report, cron: 30 3 * * *, to: nightly}",
                "  app.ship: {from: orders, handler: app:ship}",
            ],
        ),
        (
            REDPANDA,
            [
                "  order.paid: {exchange: shop, unheard: ignore}",
                "  orders: {from: orders, prefetch: 10, concurrency: 4, to: order.paid, handler: module:orders}",
            ],
        ),
        (
            RASCAL,
            [
                "  orders: {bind: [{exchange: shop, key: order.*}, {exchange: shop, key: parcel.#}], message_ttl: 60s}",
                "  order.placed: {exchange: shop}",
                "  ship: {prefetch: 10, from: orders, retry: {delay: 1s, max_delay: 60s}, handler: module:ship}",
            ],
        ),
        (
            DEFINITIONS,
            [
                "  shop: {type: topic, declare: false}",
                "  orders: {type: quorum, declare: false, bind: [{exchange: shop, key: order.*}, "
                "{exchange: shop, key: parcel.#}], delivery_limit: 5}",
            ],
        ),
        (TOML, ["  orders: {max_length: 1000}", "  ship: {from: orders, handler: app:ship}"]),
        (INI, ["  orders: {max_length: 1000}", "  ship: {handler: app:ship, from: orders}"]),
        (
            ACTIONS,
            [
                "name: shop",
                "  shop: {cron: 0 2 * * *, to: report, handler: module:shop}",
                "  report: {from: report, handler: module:report, to: send}",
                "  send: {from: send, timeout: 10m, handler: module:send}",
            ],
        ),
        (
            SERVERLESS,
            [
                "  nightly: {handler: app:report, cron: 0 3 * * *, to: nightly}",
                "  process: {handler: app:ship, from: orders, concurrency: 5, timeout: 30s}",
            ],
        ),
        (
            DAPR,
            [
                "  orders: {dead_letter: orders-failed}",
                "  order-subscription: {from: orders, handler: module:order_subscription}",
            ],
        ),
        (SPRING, ['broker: {host: rabbit, user: shop, password: "***"}', "  subscriber: {prefetch: 20}"]),
        (LOGSTASH, ["  orders: {from: orders, prefetch: 50, handler: module:orders}"]),
        (
            ROUTED,  # each of two that receive gets every message
            [
                "  parcels: {unread: ignore}",
                "  order.paid: {exchange: shop}",
                "  ship: {from: order.paid, handler: module:ship}",
                "  book: {from: order.paid, handler: module:book}",
            ],
        ),
        (ASYNCAPI, ["  place: {to: orders, handler: module:place}", "  ship: {from: orders, handler: module:ship}"]),
        (
            AIRFLOW,
            [
                "  subscriber: {retry: {attempts: 3}}",
                "  nightly: {cron: 0 3 * * *, to: read, handler: module:nightly}",
                "  read: {handler: app:read, to: report, from: read}",
            ],
        ),
        (KNATIVE, ["retry: {attempts: 6, backoff: exponential, delay: 2s}"]),
        (
            CELERY_IN_CAPITALS,
            [
                "  nightly: {handler: app:report, cron: 0 3 * * *, to: nightly}",
                "  clean: {handler: app:clean, every: 5m, to: clean}",
            ],
        ),
        (TERRAFORM, ["  orders: {durable: true, message_ttl: 60s}"]),
        (COMPOSE, ["broker: amqp://shop:***@rabbitmq:5672/"]),
        (STATES, ["  Ship: {from: Ship, to: Bill, retry: {attempts: 3, delay: 5s}, handler: module:Ship}"]),
        (
            KUBERNETES,
            ["name: shop", "  ship: {handler: app:ship, timeout: 30s, from: orders, retry: {attempts: 4}}"],
        ),
        (
            SAM,
            [
                "  orders: {dead_letter: OrdersDead}",
                "  Ship: {from: orders, handler: shop:ship, batch: 10, timeout: 30s}",
            ],
        ),
        (
            CHANNELS,
            ["broker: amqp://user:***@rabbit.example.com:5672", "  ship: {from: order.placed, handler: module:ship}"],
        ),
        (
            NESTED,
            ["  order.total: {exchange: totals", "  orders: {from: orders, to: order.total, handler: module:orders}"],
        ),
        (TIMER, ["  Timer: {cron: 30 6 * * mon-fri, to: Timer, handler: module:Timer}"]),
        (CRONTAB, ["  report: {handler: module:report, cron: 30 3 * * 1-5, to: report}"]),
    ],
)
def test_the_help_for_a_file_has_its_pipeline(text: str, parts: list[str], tmp_path: Path) -> None:
    """It is valid, begins with the version, and carries over names and values without passwords."""
    found = foreign_files.foreign_file(Lines(text), tmp_path)
    assert found is not None
    _, introduction, *lines = found.help.split("\n")
    assert introduction.startswith("write this pipeline for it")
    assert lines[0] == "version: 1"
    pipeline = "\n".join(lines)
    assert [part for part in parts if part not in pipeline] == [], pipeline
    assert "S3CR3T" not in pipeline
    document, problems = parse_yaml(pipeline)
    assert (problems, validate(document)[1]) == ([], [])


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        (SAM, "it leaves out Resources.Orders.Properties.RedrivePolicy.maxReceiveCount)"),
        (
            CHANNELS,
            "user:*** stands for your user and password; it leaves out channels.orderPlaced.messages.placed.payload)",
        ),
        (NESTED, "it leaves out output.retry.max_retries)"),
        (TOML, "write this pipeline for it:"),
        (ROUTED, "with your functions):"),
    ],
)
def test_the_help_for_a_file_names_what_has_no_place(text: str, left_out: str, tmp_path: Path) -> None:
    found = foreign_files.foreign_file(Lines(text), tmp_path)
    assert found is not None
    assert left_out in found.help.split("\n")[1]


def test_a_workflow_that_tests_software_stays_what_it_is() -> None:
    """No pipeline is written for it: the words of a workflow become one where it runs on no machine of GitHub."""
    found = foreign_files.foreign_file(Lines("on: [push]\njobs: {test: {runs-on: ubuntu-latest, steps: []}}\n"))
    assert found is not None
    assert found.help.startswith("leave it as it is")
    assert "version: 1" not in found.help


def test_functions_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("def report():\n    yield {}\n")
    found = foreign_files.foreign_file(Lines("30 3 * * * python jobs.py report\n"), tmp_path)
    assert found is not None
    assert "handler: jobs:report" in found.help


@pytest.mark.parametrize(
    "text",
    [
        "services:\n  web: {image: nginx}\n",
        "apiVersion: v1\nkind: List\nspec: [1, 2]\n",
        "apiVersion: apps/v1\nkind: Deployment\nspec: null\n",
        "input: 3\noutput: [a]\n",
        "broker_url: 5\ntask_routes: [[a]]\ntasks: 7\n",
        "vhosts: [x]\nqueues_: {}\nconnection: 1\n",
        "sources: null\nsinks: {a: [b]}\n",
        "dag_id: 3\ntasks: [null, 1, [2]]\n",
        "[a]\nb = 1\n  c\n",
        '{"vhosts": {"/": {"queues": [[], {}, null]}}}',
    ],
)
def test_a_file_of_which_nothing_is_known_has_no_pipeline(text: str) -> None:
    found = foreign_files.foreign_file(Lines(text))
    assert found is None or "\n" not in found.help or "version: 1" in found.help


def test_a_text_with_a_pipeline_between_fences_is_one_problem() -> None:
    text = "# Shop\n\nOur pipeline:\n\n```yaml\nversion: 1\nqueues: {orders: }\n```\n\nAnd more.\n"
    found = foreign_files.foreign_file(Lines(text))
    assert found is not None
    assert found.message == "this looks like a Markdown text, not a pipeline"
    assert found.help.endswith("between the fences:\nversion: 1\nqueues: {orders: }")
    assert foreign_files.foreign_file(Lines("# Shop\n```yaml\nversion: 1\nqueues: {orders: }\n```\n")) is None


def test_a_help_of_several_lines_keeps_them(tmp_path: Path) -> None:
    """In one line for each problem there is only its first line."""
    found = foreign_files.foreign_file(Lines(TOML), tmp_path)
    assert found is not None
    assert "\n    version: 1\n    queues:\n      orders: {max_length: 1000}\n" in render([found], "full").replace(
        "  |", "   "
    )
    assert render([found], "concise").count("\n") == 1
    assert "%0Aqueues:%0A  orders:" in render([found], "github")
