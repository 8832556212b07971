"""Connections that probe-lb makes from a node through a chosen next hop, and their ICMP errors."""
