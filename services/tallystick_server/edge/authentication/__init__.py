"""Who asks: the credential of a request, and the middleware that takes it off."""
