"""A collector of traces: an HTTP server of its own that takes what OpenTelemetry's exporters send.

with Collector() as collector:
    … a process with collector.env …
    collector.one("publish shop.orders")
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True)
class Span:
    """A span as it arrived. Ids are hexadecimal text; `links` are the ids of the traces and spans that are linked."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]
    is_error: bool
    description: str
    seconds: float

    @property
    def context(self) -> tuple[str, str]:
        """What another span is linked to."""
        return self.trace_id, self.span_id

    @property
    def traceparent(self) -> str:
        """The header of a message with this context."""
        return f"00-{self.trace_id}-{self.span_id}-01"


@dataclass
class Collector:
    """Listens on a free loopback port. `status` is what it answers."""

    status: int = 200
    requests: int = 0
    _found: list[Span] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _may_answer: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._may_answer.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def hang(self) -> None:
        """Take requests from now on, and answer none."""
        self._may_answer.clear()

    @property
    def env(self) -> dict[str, str]:
        """The variables of a process that exports here."""
        port = self._server.server_address[1]
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def all(self) -> list[Span]:
        """Return every span so far."""
        with self._lock:
            return list(self._found)

    def named(self, name: str, **attributes: object) -> list[Span]:
        """Return the spans of this name that have these attributes, written with `__` for `.`, in their order."""
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        return [span for span in self.all() if span.name == name and wanted.items() <= span.attributes.items()]

    def one(self, name: str, **attributes: object) -> Span:
        """Return the one span of this name that has these attributes."""
        found = self.named(name, **attributes)
        assert len(found) == 1, (
            f"{len(found)} spans {name} {attributes} among {sorted(each.name for each in self.all())}"
        )
        return found[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests += 1
                collector._may_answer.wait()
                if collector.status == 200:
                    assert self.path == "/v1/traces"
                    is_packed = self.headers.get("Content-Encoding") == "gzip"
                    collector._take(gzip.decompress(body) if is_packed else body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def _take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for group in request.resource_spans:
                resource = _plain(group.resource.attributes)
                self._found += [_read(span, resource) for scope in group.scope_spans for span in scope.spans]


def _read(span: SpanMessage, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes=_plain(span.attributes),
        resource=resource,
        events=tuple((event.name, _plain(event.attributes)) for event in span.events),
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        description=span.status.message,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return dict(_pairs(attributes))


def _pairs(attributes: Any) -> Iterator[tuple[str, Any]]:
    for item in attributes:
        kind = item.value.WhichOneof("value")
        yield item.key, getattr(item.value, kind) if kind else None
