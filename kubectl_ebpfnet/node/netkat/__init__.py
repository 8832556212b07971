"""netkat's parts: a private network namespace that wears the node's address (docs/architecture.md).

kubectl_ebpfnet/node/netkat/__main__.py is the program; it is the only importer of these modules.
"""
