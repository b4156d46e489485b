"""Schemas that strangers wrote: refused with the reason, and the node serves on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import BadConstraint, BadRequest
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.net.link import Link
from p2pnode.types import Sampling
from p2pnode.wire.messages import Fault, Open, Opened, Refused, Result, Step
from tests.support.hostile import (
    BrokenServer,
    accept,
    broken_server,
    fault,
    hostile_peer,
    ids,
    step,
)

PROMPT = [1, 403, 407, 261]
LATENCY_S = 0.01
GOOD = Sampling(constraint='{"enum": ["a"]}')
NESTED = '{"items":' * 1500 + "{}" + "}" * 1500
BAD = {
    "no JSON": '{"type":',
    "no schema": "3",
    "unknown type": '{"type": "prompt"}',
    "unsupported": '{"not": {"type": "string"}}',
    "satisfied by nothing": "false",
    "endless": '{"$ref": "#"}',
    "foreign": '{"$ref": "https://example.com/schema.json"}',
    "a file": '{"$ref": "file:///etc/passwd"}',
    "nested": NESTED,
    "large": json.dumps(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"{a}{b}": {"type": "string"}}} for b in range(2)]}
                for a in range(30)
            ]
        }
    ),
    "deep pattern": json.dumps({"type": "string", "pattern": "(" * 5000 + ")" * 5000}),
}

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize("head", ["remote", "local"])
async def test_a_bad_constraint_is_the_callers_fault_and_nobody_is_asked(
    head: str, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with swarm.client(head=head) as client:
            for schema in BAD.values():
                with pytest.raises(BadConstraint, match="constraint"):
                    await client.generate(PROMPT, sampling=Sampling(constraint=schema))
            with pytest.raises(BadRequest, match="logit_bias"):
                await client.generate(PROMPT, sampling=Sampling(logit_bias=((512, 1.0),)))
            with pytest.raises(BadRequest, match="resume_from"):
                await client.generate(PROMPT, resume_from=[-1])
            with pytest.raises(BadConstraint, match="cannot be followed"):
                await client.generate(PROMPT, sampling=GOOD, resume_from=[99])
            assert not [event for event, _ in node.events if event == "session_opened"]
            done = await client.generate(PROMPT, sampling=GOOD, max_tokens=40)
    assert json.loads(done.text) == "a"


async def test_a_node_refuses_what_no_client_of_ours_would_send_and_serves_on(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node)
            for schema in BAD.values():
                sampling = Sampling(constraint=schema)
                peer.send(stranger.open(sampling=sampling, token_ids=ids(*PROMPT), num_prompt=4))
                refused = await peer.answer(Refused, Opened)
                assert isinstance(refused, Refused)
                assert "constraint" in refused.reason
            assert not node.open_hops[0]
            # An answer that the schema does not allow: this session fails, and no other.
            known = ids(*PROMPT, 99)
            peer.send(stranger.open(sampling=GOOD, token_ids=known, num_prompt=4, send_from=4))
            await peer.answer(Opened)
            peer.send(step(0, known))
            told = await peer.answer(Fault)
            assert (told.fault, told.blamed) == ("constraint", None)
            # Where the answer begins is the client's to say, also nonsense.
            strange = {"num_prompt": 1 << 40, "send_from": 4}
            peer.send(stranger.open(sampling=GOOD, token_ids=known, **strange))
            await peer.answer(Opened)
            peer.send(step(0, known))
            assert len((await peer.answer(Result)).token_ids) == 1
        async with swarm.client() as client:
            done = await client.generate(PROMPT, sampling=GOOD, max_tokens=40)
    assert json.loads(done.text) == "a"


def follows_no_constraint(server: BrokenServer, link: Link, message: Any) -> None:
    if isinstance(message, Open):
        accept(link, message)
    elif isinstance(message, Step):
        link.send(fault(message, "constraint"))


async def test_what_cannot_be_followed_any_further_ends_the_answer_and_blames_nobody(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-8")
        async with broken_server(swarm, "0-8", follows_no_constraint) as server:
            async with swarm.client() as client:
                with pytest.raises(BadConstraint, match="constraint"):
                    await client.generate(PROMPT, sampling=GOOD)
                assert server.num_asked == 1
                # Who says so where there is none has failed, and is replaced.
                done = await client.generate(PROMPT, max_tokens=5)
    assert len(done.token_ids) == 5


def lies_about_logprobs(server: BrokenServer, link: Link, message: Any) -> None:
    if isinstance(message, Open):
        accept(link, message)
    elif isinstance(message, Step):
        position = message.position + message.entry.shape[0] - 1
        wrong = Result(
            session=message.session,
            layer=message.layer,
            epoch=message.epoch,
            branch=message.branch,
            position=position,
            token_ids=(5,),
            hidden=None,
            logprobs=b"1234",
        )
        link.send(wrong)


async def test_a_peer_whose_logprobs_are_none_is_replaced(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-8")
        async with broken_server(swarm, "0-8", lies_about_logprobs) as server:
            async with swarm.client() as client:
                for num in (None, 3):
                    sampling = Sampling(num_logprobs=num)
                    done = await client.generate(PROMPT, max_tokens=5, sampling=sampling)
                    assert len(done.token_ids) == 5
                assert server.num_asked
