"""The coherent cache of tokens, and its invalidation by every change."""
