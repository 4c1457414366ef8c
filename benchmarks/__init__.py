"""How fast the service is, against what, and what it costs at sizes that no test reaches: `make bench`."""
