"""The command line: words → a frozen request → a run → text. The only importer of typer."""
