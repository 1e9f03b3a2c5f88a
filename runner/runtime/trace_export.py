"""Exports spans by OTLP over HTTP, in a thread of its own: what the collector does not take is dropped, and said.

OpenTelemetry's variables say the rest: where to, as whom, how many, how often. A tracer provider that the user's code
has set is used as it is.
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
from runner.transports.base import OnTransportEvent, TransportEvent

CLOSE_S = 2.0
"""How long the end waits for spans that are not exported yet."""

SAY_AGAIN_S = 60.0

PROTOCOL = "http/protobuf"
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracesUnavailable(RunnerError):
    """Spans cannot be exported as OpenTelemetry's variables say."""

    exit_code = 78


class TraceExport:
    """Spans on their way to a collector, until `close`. Raises TracesUnavailable."""

    def __init__(
        self, service: str, release: str, broker: BrokerSettings, on_transport_event: OnTransportEvent = lambda _: None
    ) -> None:
        """`on_transport_event` hears of spans that are lost, also in another thread."""
        self._say = on_transport_event
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
        """Export what is left, for a moment at most: the thread is a daemon, and nothing waits for it."""
        loop, finished = asyncio.get_running_loop(), asyncio.Event()

        def finish() -> None:
            try:
                self._finish()
            finally:
                loop.call_soon_threadsafe(finished.set)

        threading.Thread(target=finish, name="trace-export-end", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_S):
                await finished.wait()
        except TimeoutError:
            error = f"the collector has not taken all of them within {CLOSE_S:g} s"
            self._say(TransportEvent("traces.lost", "warning", {"error": error}))


def _make_provider(service: str, release: str, on_transport_event: OnTransportEvent) -> TracerProvider:
    for variable in PROTOCOL_VARIABLES:
        if os.environ.get(variable, PROTOCOL).strip() not in ("", PROTOCOL):
            text = f"{variable} asks for {os.environ[variable]}, and traces are exported by {PROTOCOL}"
            raise TracesUnavailable(text, f"set it to {PROTOCOL}; collectors take that on port 4318")
    try:
        provider = TracerProvider(resource=_resource(service, release), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_SayingExporter(OTLPSpanExporter(), on_transport_event)))
    except Exception as error:  # whatever a variable says wrong, its reader raises as it likes
        raise TracesUnavailable(f"traces cannot be exported: {error}", "check the variables OTEL_*") from error
    return provider


def _resource(service: str, release: str) -> Resource:
    """Return what says who we are; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    ours: dict[str, str | int] = {
        "service.name": service,
        "service.instance.id": uuid4().hex,
        "process.pid": os.getpid(),
        **({"service.version": release} if release else {}),
    }
    theirs = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in ours.items() if name not in theirs})


class _SayingExporter(SpanExporter):
    """Exports, and says now and then that spans are lost. Runs in the exporting thread."""

    def __init__(self, exporter: SpanExporter, on_transport_event: OnTransportEvent) -> None:
        self._exporter = exporter
        self._say = on_transport_event
        self._lost = 0
        self._say_next = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter.export`."""
        try:
            result, error = self._exporter.export(spans), "the collector does not take them"
        except Exception as failure:  # foreign code, in a thread that nobody watches
            result, error = SpanExportResult.FAILURE, str(failure) or type(failure).__qualname__
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if time.monotonic() >= self._say_next:
                self._say_next = time.monotonic() + SAY_AGAIN_S
                self._say(TransportEvent("traces.lost", "warning", {"lost": self._lost, "error": error}))
        return result

    def shutdown(self) -> None:
        """See `SpanExporter.shutdown`."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """See `SpanExporter.force_flush`."""
        return self._exporter.force_flush(timeout_millis)
