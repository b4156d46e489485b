"""Choosing chains: pure functions of what is known about the swarm at one instant."""
