"""The demo on the command line: what `demo` runs and shows."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from p2pnode.cli.output import Output, chain_fields
from p2pnode.client.events import ChainChosen, HopCost, Token
from p2pnode.demo.demo import PROMPT, DemoEvent, Killed, NodeReady, Story, run_demo

RED = "\x1b[31m"


async def tell_story(output: Output) -> None:
    """Run the demo and show what happens."""
    output.say("Starting four nodes on this machine, each with a part of the built-in model:")
    is_telling = False
    async with aclosing(run_demo()) as events:
        async for event in events:
            is_telling = _show(output, event, is_telling)


def _show(output: Output, event: DemoEvent, is_telling: bool) -> bool:
    """Show what happened; returns whether the story has begun."""
    match event:
        case NodeReady():
            _ready(output, event)
        case ChainChosen():
            output.event("chain", chain=chain_fields(event.chain))
            if not is_telling:
                output.say(f"The chain: {event.chain}\n")
                output.write(PROMPT)
            return True
        case Token():
            output.event("token", position=event.position, token_id=event.token_id, text=event.text)
            output.write(event.text)
        case Killed():
            _killed(output, event)
        case story:
            output.event("result", **_result(story))
            _summary(output, story)
    return is_telling


def _ready(output: Output, event: NodeReady) -> None:
    layers = str(event.layers)
    output.event("ready", peer=event.peer, layers=layers)
    output.say(f"  {event.peer.short}  layers {layers:6} ready after {event.after_s:.1f} s")


def _killed(output: Output, event: Killed) -> None:
    output.event("killed", peer=event.peer, layers=str(event.layers))
    mark = f" [{event.peer.short} killed]"
    output.paint(mark, RED)


def _result(story: Story) -> dict[str, Any]:
    return {
        "text": story.done.text,
        "identical": story.is_identical,
        "killed_peer": story.killed.peer,
        "failovers": story.done.failovers,
        "stall_s": story.stall_s,
        "tokens_per_s": story.done.tokens_per_s,
        "chain_before": chain_fields(story.chain_before),
        "chain_after": chain_fields(story.chain_after),
    }


def _summary(output: Output, story: Story) -> None:
    killed, done = story.killed, story.done
    output.say("\n")
    output.say(f"Chain before  {story.chain_before}")
    output.say(f"Chain after   {story.chain_after}")
    num_tokens = len(done.token_ids)
    output.say(
        f"Node {killed.peer.short} (layers {killed.layers}) was killed after token "
        f"{killed.num_tokens} of {num_tokens}; the next one came {story.stall_s:.2f} s later."
    )
    verdict = "the same as" if story.is_identical else "NOT THE SAME as"
    output.say(f"The {num_tokens} tokens are {verdict} those of the model in one piece.")
    output.say(f"{done.tokens_per_s:.0f} tokens/s. Where the time of a token goes:")
    busy_s = 0.0
    for hop in story.hops:
        compute_s, queue_s = _per_step(hop)
        busy_s += compute_s + queue_s
        layers = str(hop.layers)
        output.say(
            f"  layers {layers:6} {hop.peer.short}  "
            f"compute {compute_s * 1e3:5.2f} ms  queue {queue_s * 1e3:5.2f} ms"
        )
    rest_s = max(0.0, story.token_s - busy_s)
    output.say(f"  between them and the client    {rest_s * 1e3:5.2f} ms")


def _per_step(hop: HopCost) -> tuple[float, float]:
    steps = max(1, hop.num_steps)
    return hop.compute_s / steps, hop.queue_s / steps
