"""A serving node. Start reading at `node.node`."""
