"""The connection to a cluster: the only importer of `kubernetes` and `websocket`.

Calls block; threads may share every class. Exceptions of these libraries never leave the room
(client/failures.py).
"""
