"""The dashboard at `/admin`: pages for people, over the same operations as the API."""
