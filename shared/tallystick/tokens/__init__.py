"""Tokens: their format, their record, their scopes, and the check of an access request."""
