"""Products with the same picture: found, kept together, reported."""
