"""netkat's command line as a frozen request, and the result of one attempt to connect."""
