"""Which metrics there are, and how they are recorded."""
