"""What the network policies in the cluster say of a packet, by their names and rules."""
