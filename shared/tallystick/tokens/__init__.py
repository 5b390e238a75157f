"""What a token is: its form, its record, its scopes, and whether it may do what a request asks for."""
