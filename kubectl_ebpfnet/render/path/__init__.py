"""The answer of path in every format: table, JSON, YAML, Mermaid, DOT."""
