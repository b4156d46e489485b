"""Who said it, and who may: signed envelopes, and the membership of private swarms.

What a private swarm is up against, and what is done about it. p2pd has no gate: any **stranger**
may connect to it, and identify tells the names of protocols and the addresses of a node. So a
stranger learns that there is a node of *some* private swarm; everything else has a door of ours:

- Each stream begins with a greeting, both ways (`greeting`). It is sealed under the swarm's id,
  which only members know, so a stranger can neither read nor make one; it is signed for this
  protocol between these two peers, with time and nonce, and carries the **warrant** (`grants`):
  signed sentences from the founder down to the peer's key. Whoever has none gets no word back.
- Calls of the directory are answered to peers that have greeted us, by the peer id that libp2p has
  proven; so are the answers believed.

A **member** may do what its warrant says, until it ends or is revoked (`news`). Members trust each
other: each learns who else is there and can tell anyone, a hop sees hidden states, and one who
shares its key lets others in under its name. Rights bound what a member can do as a member, and
quotas how much, at each node.

A **revocation** holds where it has been heard: at once where nodes are connected, and never at a
node that is cut off. An admin can revoke whatever comes from its own grants, the founder
everything: so no two can revoke each other, and in whatever order news comes, nodes agree.

An **invite** is a bearer's until its first use: it holds a one-time key, with which the joiner's
home names its own key, the **claim**. A node keeps the first claim that it hears of an invite,
passes it on, and refuses all others. That is all that "first" can mean without a central server:
who copies an invite and uses it in a part of the swarm that has not heard of the claim, is let in
there, and is thrown out by those who hear of both and knew the other one first. An invite for a
key (``--for``) has no such gap.

Not covered: the founder's key, lost or stolen, is the swarm's end; traffic analysis (who talks to
whom, how much); a member's machine that is broken into; floods of packets.
"""
