"""BPF programs: which run at a device, and every one that acts on a pod or a node."""
