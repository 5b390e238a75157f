"""The metrics service's SQL."""
