"""Indexes over a bundle: the cluster, a node, a network namespace. Answers, never opinions."""
