"""The node side: answers questions about a node's kernel, in a pod on that node.

Run as `python -m kubectl_ebpfnet.node` and spoken to over exec (model/protocol). The only importer
of pyroute2, and imported by nobody.
"""
