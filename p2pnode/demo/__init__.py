"""A swarm of real processes on this machine that loses a node in the middle of a story."""
