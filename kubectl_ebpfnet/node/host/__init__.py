"""The node as a machine: its mounts, its network namespaces, its own programs (iptables-save)."""
