"""Whether it may: the check of a request against its token, and the guard of every route."""
