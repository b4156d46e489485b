"""OpenTelemetry: a span per request, and one per hop within it. Off unless it is asked for.

Where spans go is OpenTelemetry's own business (``OTEL_EXPORTER_OTLP_ENDPOINT`` and the like).
Prompts and answers are in none of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from p2pnode.client.events import Done
from p2pnode.errors import LocalError
from p2pnode.gateway.timings import chain_id
from p2pnode.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

NS = 1_000_000_000


class Tracer(Protocol):
    """Told of each request when it has ended."""

    def ended(self, name: str, began_at: float, answers: Sequence[Done], error: str) -> None:
        """began_at: seconds since the epoch; error: its kind, empty for none."""
        ...

    def close(self) -> None:
        """Send what waits; blocks for a moment."""
        ...


class NoTracer:
    """The usual one."""

    def ended(self, name: str, began_at: float, answers: Sequence[Done], error: str) -> None:
        """See `Tracer`."""

    def close(self) -> None:
        """See `Tracer`."""


class OpenTelemetry:
    """Exports spans from a thread of the library's."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        """exporter: OTLP over HTTP when None. Raises LocalError without the ``otel`` extra."""
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            what = "OpenTelemetry is not installed"
            raise LocalError(f"{what}: pip install 'p2pnode[otel]'") from None
        self._provider = TracerProvider(resource=Resource({"service.name": "p2pnode-gateway"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _otlp()))
        self._tracer = self._provider.get_tracer("p2pnode", VERSION)

    def ended(self, name: str, began_at: float, answers: Sequence[Done], error: str) -> None:
        """See `Tracer`. Hops work in turns, so a hop's span begins with its answer and lasts as
        long as all its steps together."""
        from opentelemetry import trace

        start = int(began_at * NS)
        span = self._tracer.start_span(name, start_time=start)
        if error:
            span.set_status(trace.StatusCode.ERROR, error)
        within = trace.set_span_in_context(span)
        for done in answers:
            span.set_attributes(_of_answer(done))
            for hop in done.hops:
                part = self._tracer.start_span(f"hop {hop.layers}", within, start_time=start)
                part.set_attribute("p2pnode.peer", hop.peer)
                part.set_attribute("p2pnode.layers", str(hop.layers))
                part.set_attribute("p2pnode.steps", hop.num_steps)
                part.set_attribute("p2pnode.compute_s", hop.compute_s)
                part.set_attribute("p2pnode.queue_s", hop.queue_s)
                part.end(start + int((hop.compute_s + hop.queue_s) * NS))
        span.end(int(time.time() * NS))

    def close(self) -> None:
        """See `Tracer`."""
        self._provider.shutdown()


@asynccontextmanager
async def closing_off_loop(tracer: Tracer) -> AsyncIterator[None]:
    """Close it at the end, on a thread: it may wait for the network."""
    try:
        yield
    finally:
        await asyncio.get_running_loop().run_in_executor(None, tracer.close)


def _otlp() -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        what = "OpenTelemetry's OTLP exporter is not installed"
        raise LocalError(f"{what}: pip install 'p2pnode[otel]'") from None
    return OTLPSpanExporter()


def _of_answer(done: Done) -> dict[str, str | int | float]:
    return {
        "p2pnode.chain_id": chain_id(done.chain),
        "p2pnode.failovers": done.failovers,
        "p2pnode.ttft_s": done.ttft_s,
        "gen_ai.usage.input_tokens": done.prompt_tokens,
        "gen_ai.usage.output_tokens": len(done.token_ids),
    }
