"""`strangers_in` of `p2pnode bench gateway`: who gets into a private swarm without a good warrant.

In memory and on virtual time (`lab.strangers`): every door of a node with everything that somebody
outside could show there. The same with real processes is part of the tests.
"""

from __future__ import annotations

from p2pnode.bench.parts import Setup
from p2pnode.bench.resilience_rows import with_remark
from p2pnode.bench.resilience_simulated import in_thread
from p2pnode.bench.result import Row, at_most
from p2pnode.lab.strangers import strangers_in
from p2pnode.lab.virtual_time import run_virtual


async def strangers(setup: Setup) -> list[Row]:
    """The row."""
    setup.note("strangers at every door")
    tried = await in_thread(lambda: run_virtual(strangers_in()))
    inside = [f"{case} by {door}" for (door, case), is_in in tried.items() if is_in]
    row = at_most("strangers_in", [float(len(inside))], "got in", 0.0)
    remark = f"{len(tried)} tries, of {len({door for door, _ in tried})} doors"
    return [with_remark(row, "; ".join([remark, *inside]))]
