"""The demo catalogue and the code that builds it. Nothing of the service imports this package."""
