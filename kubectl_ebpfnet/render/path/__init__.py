"""The answer of path in every format: table, tree, JSON, YAML, Mermaid, DOT."""
