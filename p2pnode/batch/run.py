"""A batch from the top: read the requests, ask for those without an answer, write each answer.

Several are asked at once; answers are written as they come, in no particular order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.batch.answers import Answers
from p2pnode.batch.lines import Job, answer_line, read_jobs
from p2pnode.errors import BadRequest
from p2pnode.log import escape
from p2pnode.tasks import all_of

MAX_JOBS = 1_000_000

Ask = Callable[[str, dict[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]
"""Takes url and body; returns status and body. It waits while the swarm cannot answer."""


@dataclass(slots=True)
class Progress:
    """How far a batch is."""

    total: int = 0
    done: int = 0
    """Those of earlier runs included."""
    failed: int = 0
    """Of this run: answers that are errors of the request."""


async def run_batch(
    requests: Path,
    answers: Path,
    ask: Ask,
    *,
    at_once: int,
    on_progress: Callable[[Progress], None],
) -> Progress:
    """Answer what has no answer yet; cancelled or killed, the next run goes on from there.

    Raises BadRequest before anything is asked when a line is no request, or two have one id.
    """
    names = await asyncio.get_running_loop().run_in_executor(None, _names, requests)
    with Answers(answers) as written:
        progress = Progress(total=len(names), done=len(names & written.done))
        on_progress(progress)
        left = (job for job in read_jobs(requests) if job.custom_id not in written.done)

        async def work(jobs: Iterator[Job]) -> None:
            for job in jobs:
                status, body = await ask(job.url, job.body)
                await written.add(job.custom_id, answer_line(job, status, body))
                progress.done += 1
                progress.failed += status >= 400
                on_progress(progress)

        await all_of(*(work(left) for _ in range(at_once)))
        return progress


def _names(requests: Path) -> set[str]:
    """Check every line first: a batch that stops at line 10,000 would be a bad surprise."""
    names: set[str] = set()
    for number, job in enumerate(read_jobs(requests), start=1):
        if job.custom_id in names:
            raise BadRequest(f"two requests have the custom_id {escape(job.custom_id, 60)!r}")
        if number > MAX_JOBS:
            raise BadRequest(f"more than {MAX_JOBS} requests; split the file")
        names.add(job.custom_id)
    return names
