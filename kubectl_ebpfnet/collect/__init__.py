"""Questions to a cluster, answered as records: which, whom to ask, beside each other, in time."""
