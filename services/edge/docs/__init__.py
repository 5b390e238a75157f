"""The edge's own documentation: the OpenAPI document, and a page to try it."""
