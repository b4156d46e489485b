"""Wide area networks on one machine: namespaces, emulated lines, real processes, real faults.

Needs Linux and root; where that is missing, `NoNamespaces` says so, and the same scenarios run in
memory on virtual time (`lab.swarm`).
"""
