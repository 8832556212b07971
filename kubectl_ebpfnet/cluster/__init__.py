"""The way to a cluster: the only importer of `kubernetes` and `websocket`.

Calls block; every class may be shared by threads. Exceptions of these libraries never leave the
room (client/failures.py).
"""
