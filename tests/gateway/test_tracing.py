"""Spans for those who want them: one per request, one per hop, and no text in any."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from p2pnode.gateway.tracing import OpenTelemetry
from tests.gateway.swarms import gateway_on

pytestmark = pytest.mark.virtual_time


async def test_a_request_is_a_span_with_a_span_per_hop(tiny: Path, cache: Path) -> None:
    exporter = InMemorySpanExporter()
    tracer = OpenTelemetry(exporter)
    async with gateway_on(tiny, cache, "0-3", "4-8", tracer=tracer) as asked:
        await asked.post("/v1/completions", prompt="Once upon", max_tokens=3)
        await asked.post("/v1/completions", prompt=[1] * 300)
    tracer.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    request = next(span for name, span in spans.items() if name.startswith("cmpl-"))
    hops = [spans["hop 0-3"], spans["hop 4-8"]]
    assert [hop.parent and hop.parent.span_id for hop in hops] == [request.context.span_id] * 2
    assert request.attributes is not None
    assert request.attributes["gen_ai.usage.output_tokens"] == 3
    failed = [span for span in spans.values() if not span.status.is_ok and span.status.description]
    assert [span.status.description for span in failed] == ["PromptTooLong"]
    assert "Once" not in "".join(span.to_json() for span in spans.values())
