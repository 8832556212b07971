"""The two BPF programs of netkat, and how they attach before all others (tcx, clsact)."""
