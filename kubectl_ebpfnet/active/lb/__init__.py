"""probe-lb: attempts to reach a LoadBalancer through every node, as records for explain/lb."""
