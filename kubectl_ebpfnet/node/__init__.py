"""The node side: what the kernel of a node says of itself, in one round trip.

Runs in a pod on the node as `python -m kubectl_ebpfnet.node` and is spoken to over exec
(kubectl_ebpfnet/model/protocol/questions.py). It imports the model and the errors alone, is the
only room that imports pyroute2, and nobody imports it.
"""
