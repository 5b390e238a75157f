"""All routes of the dashboard."""

from tallystick_server.edge.dashboard import accounts, assets, login, overview, tokens

DASHBOARD = [
    *login.HANDLERS,
    *overview.HANDLERS,
    *tokens.HANDLERS,
    *accounts.HANDLERS,
    *assets.HANDLERS,
]
