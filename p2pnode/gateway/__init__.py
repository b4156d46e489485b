"""The swarm as an HTTP API in OpenAI's shape. Start reading at `gateway.completions`."""
