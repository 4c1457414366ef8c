"""Who may do what: API keys, and what this process knows of them."""
