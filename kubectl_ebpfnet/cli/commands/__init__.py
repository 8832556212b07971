"""One command a file: reads its flags, runs the request, prints the answer."""
