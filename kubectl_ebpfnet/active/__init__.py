"""What is done to a cluster and looked at: connections are made, and what came of them is told."""
