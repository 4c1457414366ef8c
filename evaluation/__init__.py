"""How well a running service finds its own products, measured over HTTP."""
