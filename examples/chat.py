"""A conversation that streams: two questions, the second of which needs the first.

Start ``p2pnode serve`` first, or name peers of a swarm in bootstrap_peers.txt.
"""

import asyncio

import p2pnode

QUESTIONS = ("Tell me a story about a dog.", "What happened then?")
SAMPLING = p2pnode.Sampling(temperature=0.7, top_p=0.95, seed=1)


async def main() -> None:
    history: list[dict[str, str]] = []
    async with p2pnode.Client() as client:
        for question in QUESTIONS:
            print(f"> {question}")
            history.append({"role": "user", "content": question})
            async for event in client.stream(history, max_tokens=80, sampling=SAMPLING):
                if isinstance(event, p2pnode.Token):
                    print(event.text, end="", flush=True)
                elif isinstance(event, p2pnode.Done):
                    history.append({"role": "assistant", "content": event.text})
            print("\n")


asyncio.run(main())
