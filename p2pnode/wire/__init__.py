"""The wire: messages and records as strict msgpack headers beside raw tensor bytes."""
