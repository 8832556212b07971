"""What a shell may complete: words of a command line in, values out."""
