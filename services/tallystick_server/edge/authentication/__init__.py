"""Authentication: the credential of a request, and the middleware that removes and checks it."""
