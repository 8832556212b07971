"""probe-lb: connect to a LoadBalancer through every node; the records are for explain/lb."""
