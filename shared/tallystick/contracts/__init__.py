"""Every NATS subject and message, once. Payloads are JSON objects; unknown fields are skipped, new ones have
defaults, and a changed meaning gets a new version in the subject.

Verification (``tallystick.v1.tokens.*``), what edges ask for on behalf of a client (``tallystick.v1.edge.*``) and what
an operator asks for (``tallystick.v1.operator.*``) are separate, so that NATS permissions can grant one without the
others.
"""
