"""The client's side of a chain: one session, its tokens, and what happens when peers fail."""
