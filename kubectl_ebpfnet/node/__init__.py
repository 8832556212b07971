"""The node side: answers what the kernel of a node says of itself, in a pod on that node.

Run as `python -m kubectl_ebpfnet.node` and spoken to over exec (model/protocol). The only importer
of pyroute2, and imported by nobody.
"""
