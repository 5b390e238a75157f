"""Tokens that tests take as they are."""

from datetime import UTC, datetime

from tallystick.contracts.records import LastUse, RateLimit, Restrictions, Token

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = Token(
    id="tok_1",
    description="",
    scopes=("api",),
    account=None,
    metadata=None,
    restrictions=Restrictions(rate_limit=RateLimit(max_requests=1, time_window=60)),
    not_before=None,
    expires=TIME,
    disabled=False,
    hint="tly_abcd",
    created=TIME,
    created_by="cli:me",
    rotated_to=None,
    access=LastUse(),
)
VECTOR = (
    "hKJpZNlAZWEzODczZjkyMzRmYjNiOGI3MDAwNDMzNzMxMzhjNzMwYzU2ZmQyZjdmYTI3ZGJjZGM2MWQ0YzljMmIyZGY4ZKdjcmVhdGVk"
    "1_-UiOcAZ2lLVqZzY29wZXORoSqrZGVzY3JpcHRpb26qdGVzdCB0b2tlbg"
)
"""A token as EmailEngine's `tokens export` prints it."""
VECTOR_TOKEN = "2aa97ad0456d6624a55d30780aa2ff61bfb7edc6fa00935b40814b271e718660"
