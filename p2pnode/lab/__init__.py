"""Swarms under laboratory conditions: virtual time, fake networks, faults on purpose."""
