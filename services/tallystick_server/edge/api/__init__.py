"""The HTTP API, a module for each group of routes. Every route names the scope it requires."""
