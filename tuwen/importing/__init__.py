"""Products from files, by the hundred thousand: read, compared with what is there, written page by page."""
