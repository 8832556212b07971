"""path: walks one packet from stage to stage and collects hops, findings and the verdict."""
