"""Serving a block: sessions, their journals, the compute thread, and the handler of messages."""
