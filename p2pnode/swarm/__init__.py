"""Being part of a swarm: joining it, announcing ourselves, and seeing who is there."""
