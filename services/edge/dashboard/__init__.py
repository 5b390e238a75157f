"""The dashboard at `/admin`: pages for people, over the same operations as the API."""

from services.edge.dashboard import accounts, assets, overview, signing_in, tokens

DASHBOARD = [
    *signing_in.HANDLERS,
    *overview.HANDLERS,
    *tokens.HANDLERS,
    *accounts.HANDLERS,
    *assets.HANDLERS,
]
