"""Picture bytes: what is accepted, how it is decoded, where it is kept."""
