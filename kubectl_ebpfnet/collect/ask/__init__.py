"""Questions to one place, as records: an agent or a pod by exec, a node pod, the API server."""
