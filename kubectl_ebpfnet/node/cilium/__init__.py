"""Cilium's pinned BPF maps, decoded: key and value size tell the layout."""
