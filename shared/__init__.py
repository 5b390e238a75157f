"""What two services must agree on: messages, rules, and how each of them talks to NATS and PostgreSQL."""

from importlib.metadata import version

VERSION = version("tallystick")
