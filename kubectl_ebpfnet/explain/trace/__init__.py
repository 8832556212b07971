"""What became of packets that nodes watched: joined across nodes, held against the path."""
