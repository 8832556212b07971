"""Output of bpftool and tc about BPF programs, and the names of pinned objects."""
