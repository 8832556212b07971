"""kubectl's `-o`: which printer, and those that kubectl has and a table is not."""
