"""The coherent cache: what a process knows about tokens, and how it learns of every change in time."""
