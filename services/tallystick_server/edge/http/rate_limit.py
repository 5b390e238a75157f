"""The response headers that describe a rate limit."""

import math

from tallystick.contracts.quotas import Quota


def rate_limit_fields(quota: Quota) -> list[tuple[bytes, bytes]]:
    """The RateLimit and RateLimit-Policy fields (draft-ietf-httpapi-ratelimit-headers), and the X-RateLimit fields that
    EmailEngine's clients read.
    """
    resets_in = max(1, math.ceil(quota.resets_in))
    return [
        (b"ratelimit-policy", f'"token";q={quota.limit};w={quota.window}'.encode()),
        (b"ratelimit", f'"token";r={quota.remaining};t={resets_in}'.encode()),
        (b"x-ratelimit-limit", b"%d" % quota.limit),
        (b"x-ratelimit-remaining", b"%d" % quota.remaining),
        (b"x-ratelimit-reset", b"%d" % resets_in),
    ]
