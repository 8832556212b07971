"""What our BPF programs see of a node's packets, as events."""
