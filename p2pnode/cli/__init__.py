"""The command line: each command parses, builds a config and calls one function."""
