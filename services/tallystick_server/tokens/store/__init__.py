"""The tokens service's SQL."""
