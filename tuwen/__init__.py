"""The service: one room a domain. `docs/architecture.md` draws the house, `tests/test_architecture.py` guards it."""
