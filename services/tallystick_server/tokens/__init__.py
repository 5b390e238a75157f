"""The tokens service: owns tokens and accounts in PostgreSQL and answers about them over NATS."""
