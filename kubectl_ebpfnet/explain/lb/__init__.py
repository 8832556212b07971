"""probe-lb: what a Service asks of each node, beside what the attempts met, and likely causes."""
