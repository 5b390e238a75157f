"""The edge: the only open port. Takes the token off the request, checks it over NATS, serves the API."""
