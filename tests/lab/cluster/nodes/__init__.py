"""A node as namespaces of this machine: network, kubelet, CNI plugin; and the world outside."""
