"""Several of everything: NATS in three nodes, PostgreSQL with a standby, replicas of each service."""
