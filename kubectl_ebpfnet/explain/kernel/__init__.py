"""Decisions of the kernel, followed by its tables: routing, netfilter, kube-proxy's chains."""
