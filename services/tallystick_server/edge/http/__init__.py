"""What every answer over HTTP has in common: bounds, errors, negotiation, the access log."""
