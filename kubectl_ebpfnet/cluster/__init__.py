"""The way to the cluster: the only room that imports `kubernetes` and `websocket`.

    kubeconfig.py   files and flags → what a connection needs; no network
    credentials.py  who we are: tokens, certificates, plugins, impersonation
    library.py      a narrow door to the `kubernetes` library, which is slow to import whole
    transport.py    TLS, the REST pool, the proxy in front of them
    session.py      one connection to one cluster, shared by threads
    failures.py     what went wrong → kubectl_ebpfnet.errors
    api.py          objects as plain dicts
    channels.py     the exec protocol, v4 and v5, without a socket
    exec.py         a command in a container: bytes, exit code
    resolve.py      `pod/x`, `deploy/x`, `svc/x:80`, `node/x` → objects
    agents.py       which pod is Cilium's agent on which node

Calls block and every class may be shared by threads. Library exceptions never leave the room.
"""
