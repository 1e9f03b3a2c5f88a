"""Export of spans by OTLP over HTTP, in a thread. Spans that the collector does not accept are dropped and reported.

OpenTelemetry's variables configure the endpoint, the service name, sampling and batching. If the user's code has set a
tracer provider, that one is used unchanged.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from runner.errors import RunnerError
from runner.pipeline.model import BrokerSettings
from runner.release import version_fields
from runner.runtime.tracing import Tracer
from runner.tasks import wait_set
from runner.transports.base import OnTransportEvent, TransportEvent

CLOSE_S = 2.0
"""Longest time that `close` waits for the export of the last spans."""

WARNING_INTERVAL_S = 60.0
"""Minimum time between two warnings about lost spans."""

PROTOCOL = "http/protobuf"
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracesUnavailable(RunnerError):
    """OpenTelemetry's variables ask for an export that is not possible."""

    exit_code = 78


class TraceExport:
    """The export of this process's spans, from creation until `close`. Raises TracesUnavailable."""

    def __init__(
        self, service: str, release: str, broker: BrokerSettings, on_transport_event: OnTransportEvent = lambda _: None
    ) -> None:
        """`on_transport_event` is called when spans are lost, possibly in another thread."""
        self._report = on_transport_event
        provider = trace.get_tracer_provider()
        self._finish: Callable[[], object]
        if isinstance(provider, trace.ProxyTracerProvider):
            provider = _make_provider(service, release, on_transport_event)
            trace.set_tracer_provider(provider)
            self._finish = provider.shutdown
        else:
            self._finish = getattr(provider, "force_flush", lambda: None)
        self.tracer = Tracer(provider.get_tracer("runner", version_fields("")["version"]), broker)

    async def close(self) -> None:
        """Export the remaining spans, for at most 2 seconds. The thread is a daemon, so it cannot delay the exit."""
        loop, finished = asyncio.get_running_loop(), asyncio.Event()

        def finish() -> None:
            try:
                self._finish()
            finally:
                loop.call_soon_threadsafe(finished.set)

        threading.Thread(target=finish, name="trace-export-end", daemon=True).start()
        if not await wait_set(finished, CLOSE_S):
            error = f"the collector did not accept all spans within {CLOSE_S:g} s"
            self._report(TransportEvent("traces.lost", "warning", {"error": error}))


def _make_provider(service: str, release: str, on_transport_event: OnTransportEvent) -> TracerProvider:
    for variable in PROTOCOL_VARIABLES:
        if os.environ.get(variable, PROTOCOL).strip() not in ("", PROTOCOL):
            text = f"{variable} asks for {os.environ[variable]}, but the runner exports traces by {PROTOCOL} only"
            raise TracesUnavailable(text, f"set it to {PROTOCOL}; collectors listen for it on port 4318")
    try:
        provider = TracerProvider(resource=_resource(service, release), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_ReportingExporter(OTLPSpanExporter(), on_transport_event)))
    except Exception as error:  # OpenTelemetry raises errors of many classes for wrong variables
        raise TracesUnavailable(f"traces cannot be exported: {error}", "check the variables OTEL_*") from error
    return provider


def _resource(service: str, release: str) -> Resource:
    """Return the attributes that identify this process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    defaults: dict[str, str | int] = {
        "service.name": service,
        "service.instance.id": uuid4().hex,
        "process.pid": os.getpid(),
        **({"service.version": release} if release else {}),
    }
    configured = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in defaults.items() if name not in configured})


class _ReportingExporter(SpanExporter):
    """An exporter that warns of lost spans, at most once a minute. It runs in the exporting thread."""

    def __init__(self, exporter: SpanExporter, on_transport_event: OnTransportEvent) -> None:
        self._exporter = exporter
        self._report = on_transport_event
        self._lost = 0
        self._next_warning_at = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result, error = self._exporter.export(spans), "the collector does not accept the spans"
        except Exception as failure:  # an error would end the exporting thread unnoticed
            result, error = SpanExportResult.FAILURE, str(failure) or type(failure).__qualname__
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if time.monotonic() >= self._next_warning_at:
                self._next_warning_at = time.monotonic() + WARNING_INTERVAL_S
                self._report(TransportEvent("traces.lost", "warning", {"lost": self._lost, "error": error}))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)
