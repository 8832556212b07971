"""The contract between a client and the node side: questions, JSON forms, frames."""
