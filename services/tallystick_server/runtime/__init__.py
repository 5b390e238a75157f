"""What services need to run: settings, PostgreSQL, NATS permissions, start and stop, logs."""

from pathlib import Path

AUTHORITY_SCRIPT = Path(__file__).with_name("authority.sh")
"""Makes a certificate authority and certificates."""
