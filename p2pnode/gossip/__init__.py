"""What peers say of themselves now, spread from peer to peer, and whether they are still there.

The decisions are pure (`core.Core` and below: values and ``now`` in, messages out); `gossip.Gossip`
is the only part that knows links, tasks and clocks.
"""
