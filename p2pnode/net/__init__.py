"""Peers reach each other: identities, the owned p2pd, byte streams, and links of messages."""
