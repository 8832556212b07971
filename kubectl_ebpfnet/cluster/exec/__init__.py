"""A command in a container by exec over a websocket: run to its end, or live with its streams."""
