"""Why it does not work, or is slow: checks of this machine and of the swarm, a probe, a verdict.

To measure and to judge are separate: `doctor.examine` gathers values, `rules.judge` and `checks`
are pure.
"""
