"""The tokens service's answers to requests over NATS."""
