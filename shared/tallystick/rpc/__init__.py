"""Request-reply over NATS."""
