"""Hypothesis strategies for input: JSON of any shape, and values that are almost valid."""

from typing import Any

import msgspec
from hypothesis import strategies as st

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *("", "\0", "alice", "api", "*", "tok_" + "0" * 26, "f" * 64, "tly_" + "0" * 49),
            *("edge_" + "0" * 26, "2030-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "10.0.0.0/8"),
            *("9999-12-31T23:59:59-23:59", "'; drop table token; --", "../..", "%", "\u202e", "x" * 2000),
        ]
    ),
)
numbers = st.one_of(
    st.integers(-2, 3),
    st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30]),
    st.floats(),
)
json = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


def almost(kind: type[msgspec.Struct], *, depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the fields of a message, each with a valid or an invalid value."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    fields = {field.encode_name: st.one_of(_fitting(field.type, depth), json) for field in info.fields}
    required = {field.encode_name: _fitting(field.type, depth) for field in info.fields if field.required}
    return st.one_of(
        st.fixed_dictionaries(
            required, optional={name: part for name, part in fields.items() if name not in required}
        ),
        st.fixed_dictionaries({}, optional=fields),
    )


def _fitting(kind: msgspec.inspect.Type, depth: int) -> st.SearchStrategy[Any]:  # noqa: PLR0911  # a table
    match kind:
        case msgspec.inspect.StructType(cls=inner) if depth:
            return almost(inner, depth=depth - 1)
        case msgspec.inspect.UnionType(types=types):
            return st.one_of([_fitting(member, depth) for member in types])
        case msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(_fitting(item, depth), max_size=3)
        case msgspec.inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return numbers
        case msgspec.inspect.StrType(pattern=str()):
            return st.sampled_from(["f" * 64, "ab" * 32, "edge_" + "0" * 26])
        case msgspec.inspect.StrType() | msgspec.inspect.DateTimeType():
            return texts
    return json


def encoded(value: Any) -> bytes:
    """The value as JSON. Python's encoder is laxer than the standard, so that NaN is sent too."""
    import json as laxly

    return laxly.dumps(value).encode()
