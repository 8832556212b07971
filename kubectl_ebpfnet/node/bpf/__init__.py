"""bpf(2): programs, maps, links, attach points; assembles and loads our own programs."""
