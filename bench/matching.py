"""What a referrer of 2,048 bytes that is made to be slow costs a token with the most and worst patterns it may have,
beside an ordinary referrer of the same length; medians of one run.

    .venv/bin/python -m bench.matching
"""

import statistics
import time

from tallystick.tokens.access import MAX_REFERRER_BYTES, referrer_allowed
from tallystick.tokens.rules import MAX_REFERRER, MAX_REFERRERS, MAX_WILDCARDS

ROUNDS = 200
PAGE = "https://h/"
PLAIN = (PAGE + "shop/orders/page-" * MAX_REFERRER_BYTES)[:MAX_REFERRER_BYTES]
REPEATED = (PAGE + "a" * MAX_REFERRER_BYTES)[:MAX_REFERRER_BYTES]

LONGEST = MAX_REFERRER - len(PAGE) - 2
SHARE = LONGEST // (MAX_WILDCARDS - 1) - 1
WORST = {
    "many wildcards": PAGE + "*a" * (MAX_WILDCARDS - 1) + "*b",
    "one long segment that almost fits": PAGE + "*" + "a" * (LONGEST - 2) + "ba" + "*",
    "many long segments, the last one almost fits": (
        PAGE + ("*" + "a" * SHARE) * (MAX_WILDCARDS - 2) + "*" + "a" * (SHARE - 2) + "ba" + "*"
    ),
    "short segments at the limit of a plain search": PAGE
    + ("*" + "a" * 14 + "ba") * (MAX_WILDCARDS - 1)
    + "*",
}


def median_s(patterns: tuple[str, ...], referrer: str) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        allowed = referrer_allowed(patterns, referrer)
        took.append(time.perf_counter() - began)
        assert not allowed
    return statistics.median(took)


def main() -> None:
    print(f"{MAX_REFERRERS} patterns, a referrer of {MAX_REFERRER_BYTES} bytes that none of them matches")
    for name, worst in WORST.items():
        assert len(worst) <= MAX_REFERRER
        assert worst.count("*") <= MAX_WILDCARDS
        patterns = (worst,) * MAX_REFERRERS
        slow, plain = median_s(patterns, REPEATED), median_s(patterns, PLAIN)
        print(f"{name}: {slow * 1e6:.0f} us, plain {plain * 1e6:.0f} us, ratio {slow / plain:.1f}")


if __name__ == "__main__":
    main()
