"""HTTP mechanics that all routes share: limits, errors, content negotiation, the access log."""
