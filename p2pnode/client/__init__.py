"""The client: generate text through a chain of peers. Start reading at `client.client`."""
