"""A real Kubernetes on this machine: `python -m tests.lab up|down|status` (docs/lab.md)."""
