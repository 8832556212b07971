"""The server of a node pod: reads requests, forks a child for each session, writes answers."""
