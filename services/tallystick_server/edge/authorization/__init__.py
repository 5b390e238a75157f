"""Authorization: the requirements that routes declare, and the guard that enforces them."""
