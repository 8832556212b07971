"""netkat's command line as a frozen request, and what came of one attempt to connect."""
