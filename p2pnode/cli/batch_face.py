"""A batch on the command line: what `batch` runs and shows."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from p2pnode.batch.run import Progress, run_batch
from p2pnode.cli.output import Output, ProgressBar
from p2pnode.cli.run import run_async
from p2pnode.client.client import Client
from p2pnode.config import ClientConfig
from p2pnode.gateway.direct import answered
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.settings import GatewaySettings
from p2pnode.tasks import Tasks


def answer_all(
    requests: Path,
    answers: Path,
    config: ClientConfig,
    model: str | None,
    at_once: int,
    output: Output,
) -> None:
    """Run a batch to its end."""
    with ProgressBar("answered", counts=True) as bar:

        def show(progress: Progress) -> None:
            bar.update(progress.done, progress.total)
            output.event("progress", done=progress.done, total=progress.total)

        async def run() -> Progress:
            progress = Progress()
            gateway, joined = Gateway(GatewaySettings()), asyncio.Event()
            async with Tasks() as tasks:
                make_client = partial(Client, model=model, config=config)
                tasks.start(gateway.run(make_client, joined), name="gateway")
                await joined.wait()
                ask = partial(answered, gateway)
                progress = await run_batch(
                    requests, answers, ask, at_once=at_once, on_progress=show
                )
            return progress

        progress = run_async(run())
    output.event("result", done=progress.done, total=progress.total, failed=progress.failed)
    failed = f", {progress.failed} of them errors" if progress.failed else ""
    output.say(f"{progress.done} of {progress.total} answered{failed}")
