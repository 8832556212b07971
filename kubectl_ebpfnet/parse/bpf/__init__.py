"""What bpftool and tc print of BPF programs, and the names of pinned objects."""
