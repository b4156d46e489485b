"""Fuzzers of everything that reads what strangers wrote: ``python -m tests.fuzz NAME --runs N``."""
