"""What users install: krew's manifest, the archive, and both as krew lays them out."""
