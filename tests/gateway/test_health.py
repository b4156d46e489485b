"""Whether an answer could be given, and what there is to measure."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from p2pnode.gateway.app import make_app
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.settings import GatewaySettings
from tests.gateway.swarms import Asked, gateway_on

PROMPT = [1, 403, 407, 261]

pytestmark = pytest.mark.virtual_time


async def test_health_is_ready_or_says_which_layers_are_missing(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-3", "4-8") as asked:
        ready = await asked.http.get("/health")
        asked.swarm.nodes[1].leaving.set()
        await asyncio.sleep(3.0)
        missing = await asked.http.get("/health")
        ping = await asked.http.get("/ping")
    assert (ready.status_code, ready.json()["ready"], ready.json()["why"]) == (200, True, "")
    assert missing.status_code == 503
    assert missing.json()["missing_layers"] == ["4-8"]
    assert "no live peer serves layers 4-8 of tiny" in missing.json()["why"]
    assert ping.status_code == 200


async def test_a_gateway_in_no_swarm_says_so_everywhere() -> None:
    gateway = Gateway(GatewaySettings())
    async with Asked(None, gateway, make_app(gateway)).http as http:
        answers = [await http.get("/health"), await http.get("/v1/models")]
        figures = await http.get("/metrics")
    assert [answer.status_code for answer in answers] == [503, 503]
    assert answers[1].json()["error"]["code"] == "not_joined"
    assert "p2pnode_joined 0.0" in figures.text


async def test_metrics_count_answers_and_show_peers(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-3", "4-8") as asked:
        await asyncio.sleep(3.0)  # virtual: gossip has told by then
        await asked.post("/v1/completions", prompt=PROMPT, max_tokens=20, temperature=0)
        await asked.post("/v1/completions", prompt=PROMPT * 100)
        text = (await asked.http.get("/metrics")).text
        peers = {node.peer for node in asked.swarm.nodes}
    values = {
        (sample.name.removeprefix("p2pnode_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["tokens_total",] == 20
    assert values["prompt_tokens_total",] == len(PROMPT)
    assert values["answers_total", "length"] == 1
    assert values["errors_total", "PromptTooLong"] == 1
    assert values["http_responses_total", "400"] == 1
    assert values["answers_running",] == 0
    assert values["missing_layers",] == 0
    assert values["ttft_seconds_count",] == 1
    for traffic in ("chain", "control"):
        for direction in ("sent", "received"):
            assert values["link_bytes_total", *sorted((traffic, direction))] > 100
    names = ("peer_vram_bytes", "peer_kv_pages", "peer_alive", "peer_queue_depth")
    for name in (*names, "hop_steps_total", "peer_step_seconds_bucket", "peer_kv_pages_free"):
        labelled = {label for key in values if key[0] == name for label in key[1:]}
        assert peers <= labelled, name


async def test_two_gateways_count_for_themselves(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache) as asked:
        other = Gateway(GatewaySettings(), asked.gateway.client)
        await asked.post("/v1/completions", prompt=PROMPT, max_tokens=2)
    assert asked.tokens == 2
    assert not other.metrics.registry.get_sample_value("p2pnode_tokens_total")
