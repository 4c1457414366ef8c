"""Words: what texts are made of, as products are found by them."""
