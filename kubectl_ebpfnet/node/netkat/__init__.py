"""netkat: netcat that neither netfilter, nor a socket, nor the CNI of the node sees.

It connects from a private network namespace that wears the node's address
(docs/architecture.md). Run as `python -m kubectl_ebpfnet.node.netkat`.
"""
