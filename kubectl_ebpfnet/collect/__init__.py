"""Asks a cluster and keeps what it said: the table of tasks, the runner, and the capture file."""
