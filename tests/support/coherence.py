"""The cache of an edge, and the propagation of changes to all edges."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from tallystick.coherence.cache import Cache
from tallystick.coherence.notices import notice_key
from tallystick.contracts.propagation import SETTLE, Settle, Settled, TokenChange
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format


async def leased(edges: Sequence[object], operator) -> None:
    """Returns when all edges hold a lease and have applied every change, including the creation of a token: a later notice
    would make them look the token up again.
    """
    async with asyncio.timeout(30):
        while True:
            settled = await call(operator, SETTLE.by_operator, Settle())
            if isinstance(settled, Settled) and settled.settled and settled.edges == len(edges):
                return
            await asyncio.sleep(0.02)


def cache_of(edge: httpx.AsyncClient) -> Cache:
    transport: Any = edge._transport
    cache: Cache = transport.app._verifier.cache
    return cache


def make_cold(edge: httpx.AsyncClient, token: str) -> None:
    """Makes the edge drop a token from its cache, as a repeated change notice does."""
    digest = bytes.fromhex(token_format.digest(token) or "")
    cache_of(edge).apply_changes([TokenChange(seq=0, key=notice_key(digest), rev=0)], 0)
