"""Cilium's pinned BPF maps, decoded: their layouts are told apart by key and value size."""
