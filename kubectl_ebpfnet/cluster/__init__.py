"""The way to the cluster: the only room that imports `kubernetes` and `websocket`.

    kubeconfig.py   files and flags → what a connection needs; no network
    credentials.py  who we are: tokens, certificates, plugins, impersonation
    library.py      a narrow door to the `kubernetes` library, which is slow to import whole
    session.py      one connection to one cluster: REST pool, TLS, sockets for exec
    failures.py     what went wrong → kubectl_ebpfnet.errors
    api.py          objects as plain dicts
    exec.py         a command in a container: bytes, exit code
    resolve.py      `pod/x`, `deploy/x`, `svc/x:80`, `node/x` → objects
    agents.py       which pod is Cilium's agent on which node

Calls block and every class may be shared by threads. Library exceptions never leave the room.
"""
