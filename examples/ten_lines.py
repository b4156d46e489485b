"""The client library in ten lines: text from whatever swarm can be found."""

import asyncio

import p2pnode


async def main() -> None:
    async with p2pnode.Client() as client:
        async for event in client.stream("Once upon a time", max_tokens=60):
            if isinstance(event, p2pnode.Token):
                print(event.text, end="", flush=True)
    print()


asyncio.run(main())
