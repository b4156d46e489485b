"""A conversation of two questions, the second of which needs the first."""

import asyncio

import p2pnode

QUESTIONS = ("Tell me a story about a dog.", "What happened then?")


async def main() -> None:
    history: list[dict[str, str]] = []
    async with p2pnode.Client() as client:
        for question in QUESTIONS:
            history.append({"role": "user", "content": question})
            sampling = p2pnode.Sampling(temperature=0.7, top_p=0.95, seed=1)
            done = await client.generate(history, max_tokens=80, sampling=sampling)
            history.append({"role": "assistant", "content": done.text})
            print(f"> {question}\n{done.text}\n")


asyncio.run(main())
