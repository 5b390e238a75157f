"""The command line's own commands; each talks to the services over NATS."""
