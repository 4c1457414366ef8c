"""A1 to A4: from a query to ranked products."""
