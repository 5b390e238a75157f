"""The PostgreSQL and NATS that `tallystick up` brings along."""
