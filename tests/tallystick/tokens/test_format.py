import hashlib
import re

import pytest
from hypothesis import given, strategies as st

from tallystick.tokens import format as token_format

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEX = "2aa97ad0456d6624a55d30780aa2ff61bfb7edc6fa00935b40814b271e718660"


def test_minted_tokens_are_well_formed_and_unique():
    minted = {token_format.mint() for _ in range(100)}
    assert len(minted) == 100
    assert all(len(value) == 53 and token_format.is_ours(value) for value in minted)


@given(position=st.integers(4, 52), character=st.sampled_from(BASE62))
def test_one_changed_character_is_detected(position: int, character: str):
    value = token_format.mint()
    changed = value[:position] + character + value[position + 1 :]
    assert token_format.is_ours(changed) is (changed == value)


def test_hexadecimal_values_are_hashed_as_bytes_in_either_case():
    digest = "ea3873f9234fb3b8b700043373138c730c56fd2f7fa27dbcdc61d4c9c2b2df8d"
    assert token_format.digest(HEX) == token_format.digest(HEX.upper()) == digest


def test_opaque_values_are_hashed_as_text():
    value = "sk_live_0123456789"
    assert token_format.digest(value) == hashlib.sha256(value.encode()).hexdigest()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a",
        "x" * 15,
        "x" * 257,
        "x" * 100_000,
        HEX[:-1],
        HEX + "a",
        "tly_" + "a" * 49,
        "tly_short",
        "２" * 64,
        "a" * 20 + "\n",
        "a b" * 10,
        "é" * 20,
        "\x7f" * 20,
    ],
)
def test_a_malformed_token_has_no_digest(value: str):
    assert token_format.digest(value) is None


@given(st.text(max_size=600))
def test_a_digest_is_hexadecimal_or_none(value: str):
    digest = token_format.digest(value)
    assert digest is None or re.fullmatch("[0-9a-f]{64}", digest)
