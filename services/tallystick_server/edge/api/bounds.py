"""The tokens service's constraints on the fields of request bodies, as JSON Schema. They are stricter than the types,
and are derived from the constants of `tallystick.tokens`, which the service enforces.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from tallystick.contracts import input_limits
from tallystick.contracts.records import NewToken, RateLimit, Restrictions
from tallystick.contracts.tokens import RateLimitUpdate, RestrictionsUpdate, TokenUpdate
from tallystick.tokens import emailengine_record, rules, scopes
from tallystick_server.edge.api.accounts import NewAccount
from tallystick_server.edge.api.emailengine_form import LONGEST, EmailEngineRestrictions, EmailEngineToken
from tallystick_server.edge.api.oauth import IntrospectionForm
from tallystick_server.edge.api.tokens import Rotation

Object = dict[str, Any]

MAX_BYTES = "x-maxBytes"
"""The maximum size of a value as JSON without white space, which JSON Schema cannot express."""

_NO_NUL = r"^[^\u0000]*$"
_DESCRIPTION = {"maxLength": rules.MAX_DESCRIPTION, "pattern": _NO_NUL}
_SCOPE = {"minLength": 1, "maxLength": scopes.MAX_LENGTH, "pattern": rf"^(\*|{scopes.SCOPE})$"}
_SCOPES = {"minItems": 1, "maxItems": scopes.MAX_COUNT, "items": _SCOPE}
_ACCOUNT = {"minLength": 1, "maxLength": rules.MAX_ACCOUNT, "pattern": f"^{rules.ACCOUNT}$"}
_METADATA = {MAX_BYTES: rules.MAX_METADATA}
_ADDRESSES = {"minItems": 1, "maxItems": rules.MAX_ADDRESSES, "items": {"minLength": 1}}
_REFERRER: Object = {
    "minLength": 1,
    "maxLength": rules.MAX_REFERRER,
    "pattern": rf"^(?=[!-~]*$)([^*]*\*){{0,{rules.MAX_WILDCARDS}}}[^*]*$",
}
_EMAILENGINE_REFERRER = {
    **_REFERRER,
    "pattern": rf"^(?={emailengine_record.REFERRER}$)(?!([^/]*://)?[^/]*[A-Z]){_REFERRER['pattern'].removeprefix('^')}",
}
_REFERRERS = {"minItems": 1, "maxItems": rules.MAX_REFERRERS, "items": _REFERRER}
_MAX_REQUESTS = {"minimum": 1, "maximum": rules.MAX_REQUESTS}
_TIME_WINDOW = {"minimum": 1, "maximum": rules.MAX_TIME_WINDOW}

BOUNDS: Mapping[type[Struct], Mapping[str, Mapping[str, Object]]] = {
    NewToken: {
        "description": {"string": _DESCRIPTION},
        "scopes": {"array": _SCOPES},
        "account": {"string": _ACCOUNT},
        "metadata": {"object": _METADATA},
    },
    TokenUpdate: {
        "description": {"string": _DESCRIPTION},
        "scopes": {"array": _SCOPES},
        "metadata": {"object": _METADATA},
    },
    # Responses use this type too: a stored token may have more referrers than a new one.
    Restrictions: {"addresses": {"array": _ADDRESSES}, "referrers": {"array": {"minItems": 1}}},
    RateLimit: {"maxRequests": {"integer": _MAX_REQUESTS}, "timeWindow": {"integer": _TIME_WINDOW}},
    RestrictionsUpdate: {"addresses": {"array": _ADDRESSES}, "referrers": {"array": _REFERRERS}},
    RateLimitUpdate: {"maxRequests": {"integer": _MAX_REQUESTS}, "timeWindow": {"integer": _TIME_WINDOW}},
    Rotation: {"grace": {"integer": {"minimum": 0, "maximum": rules.MAX_GRACE_S}}},
    NewAccount: {"account": {"string": _ACCOUNT}, "name": {"string": _DESCRIPTION}},
    EmailEngineToken: {
        "description": {"string": {"pattern": _NO_NUL}},
        "scopes": {"array": _SCOPES, "string": _SCOPE},
        "account": {"string": _ACCOUNT},
        "metadata": {"object": _METADATA},
    },
    EmailEngineRestrictions: {
        "addresses": {"array": _ADDRESSES},
        # Neither an empty list nor an empty string restricts anything.
        "referrers": {
            "array": {**_REFERRERS, "minItems": 0, "items": _EMAILENGINE_REFERRER},
            "string": {
                **_EMAILENGINE_REFERRER,
                "minLength": 0,
                "pattern": f"^$|{_EMAILENGINE_REFERRER['pattern']}",
            },
        },
    },
    IntrospectionForm: {
        "scope": {
            "string": {
                "maxLength": scopes.MAX_COUNT * (scopes.MAX_LENGTH + 1) - 1,
                "pattern": rf"^(\*|{scopes.SCOPE})( (\*|{scopes.SCOPE})){{0,{scopes.MAX_COUNT - 1}}}$",
            }
        }
    },
}
"""The bounds of a field's values by type, field and JSON type."""

REQUIRED: Mapping[type[Struct], tuple[str, ...]] = {NewToken: ("scopes",), EmailEngineToken: ("scopes",)}
"""Required fields with a default. The tokens service rejects that default, so that it reports all faults together."""

_YEARS = f"at most {rules.MAX_LIFETIME.days} days from now"
_TIMES = {
    "expires": f"when the token expires: a time with a time zone, in the future, after `notBefore`, and {_YEARS}.",
    "notBefore": f"when the token becomes valid: a time with a time zone, not before 1970, and {_YEARS}.",
}
_METADATA_TEXT = (
    f"a JSON object of any content: at most {rules.MAX_METADATA} bytes in UTF-8 without white space, at most "
    f"{input_limits.MAX_DEPTH} levels deep, without NUL characters."
)
_ADDRESSES_TEXT = "allowed IP addresses and CIDR networks, without host bits."
_REFERRERS_TEXT = (
    f"allowed referrers: patterns of visible ASCII characters with at most {rules.MAX_WILDCARDS} `*`."
)
_RESTRICTIONS_TEXTS = {"addresses": _ADDRESSES_TEXT, "referrers": _REFERRERS_TEXT}
DESCRIPTIONS: Mapping[type[Struct], Mapping[str, str]] = {
    NewToken: {
        **_TIMES,
        "metadata": _METADATA_TEXT,
        "account": "the account that the token is bound to. It must exist.",
    },
    TokenUpdate: {**_TIMES, "metadata": f"{_METADATA_TEXT} It is merged into the stored object."},
    Restrictions: _RESTRICTIONS_TEXTS,
    RestrictionsUpdate: _RESTRICTIONS_TEXTS,
    RateLimit: {"timeWindow": "in seconds."},
    RateLimitUpdate: {"timeWindow": "in seconds."},
    Rotation: {
        "grace": "seconds for which the old secret stays valid. Self-rotation may have a lower limit, by default one day."
    },
    EmailEngineToken: {
        "description": f"at most {rules.MAX_DESCRIPTION} characters; leading and trailing white space is removed.",
        "metadata": (
            "a JSON object, or JSON in a string. JSON other than an object is stored under the key `emailengine`. "
            f"At most {rules.MAX_METADATA} bytes as JSON."
        ),
        "notBefore": _TIMES["notBefore"],
        "expires": (
            f"a date, or a time with a time zone, in the future. It is capped at {LONGEST.days} days from now."
        ),
    },
    EmailEngineRestrictions: {
        "addresses": "one or more IP addresses and networks; host bits are ignored.",
        "referrers": f"one or more patterns of visible ASCII characters with at most {rules.MAX_WILDCARDS} `*`.",
    },
}
"""Descriptions by type and field, for what the bounds do not express."""


def add_bounds(schemas: Mapping[str, Object]) -> None:
    """Adds the bounds and descriptions to the schemas, which are given by name."""
    for kind, fields in BOUNDS.items():
        for name, by_type in fields.items():
            field = schemas[kind.__name__]["properties"][name]
            for option in field.get("anyOf", [field]):
                _bound(option, by_type.get(option.get("type"), {}))
    for kind, texts in DESCRIPTIONS.items():
        for name, text in texts.items():
            schemas[kind.__name__]["properties"][name]["description"] = text
    for kind, names in REQUIRED.items():
        schema = schemas[kind.__name__]
        schema["required"] = [*schema["required"], *names]
        for name in names:
            del schema["properties"][name]["default"]
    schemas[NewToken.__name__]["properties"]["restrictions"]["properties"] = {"referrers": _REFERRERS}


def _bound(schema: Object, bounds: Object) -> None:
    items = bounds.get("items", {})
    schema |= {name: value for name, value in bounds.items() if name != "items"}
    if items:
        schema["items"] |= items
