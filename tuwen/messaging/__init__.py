"""The way from a committed change to its consumer: outbox, relay, transports."""
