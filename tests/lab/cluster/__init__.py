"""What the lab is made of: its nodes, control plane, network, agents, pods and their faults."""
