"""kubectl ebpfnet: follow a packet through a Cilium cluster, hop by hop, with proof.

The rooms of this package, what each is for and which may import which: docs/architecture.md.
"""

__version__ = "0.1.0"
