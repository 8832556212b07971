"""Run a command in a container by exec over a websocket: to its end, or live with its streams."""
