"""What Cilium would do on a node: programs, maps and policies, kept in step with the cluster."""
