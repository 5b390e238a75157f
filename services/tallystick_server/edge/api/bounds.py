"""What the tokens service demands of the fields of request bodies, as JSON Schema: the types say less. The numbers and
patterns are the ones that it judges by.
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
"""The longest encoding of a value as JSON without white space, which JSON Schema cannot say."""

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
    # Answers hold these as well: a stored token may have more referrers than a new one.
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
"""By type and field, the bounds of a value of each JSON type that the field may have."""

REQUIRED: Mapping[type[Struct], tuple[str, ...]] = {NewToken: ("scopes",), EmailEngineToken: ("scopes",)}
"""Fields that a type declares with a default which is rejected, so that their absence is reported with all other faults."""

_YEARS = f"at most {rules.MAX_LIFETIME.days} days from now"
_TIMES = {
    "expires": f"when it ends, a time with its zone: in the future, after `notBefore`, and {_YEARS}.",
    "notBefore": f"when it begins, a time with its zone: not before 1970, and {_YEARS}.",
}
_METADATA_TEXT = (
    f"an object of your own: at most {rules.MAX_METADATA} bytes as JSON in UTF-8 without white space, nested at most "
    f"{input_limits.MAX_DEPTH} deep, and without NUL characters."
)
_ADDRESSES_TEXT = "where it works from: IP addresses and CIDR networks without host bits."
_REFERRERS_TEXT = (
    f"where it works from: patterns of visible ASCII characters, with at most {rules.MAX_WILDCARDS} `*`."
)
_RESTRICTIONS_TEXTS = {"addresses": _ADDRESSES_TEXT, "referrers": _REFERRERS_TEXT}
DESCRIPTIONS: Mapping[type[Struct], Mapping[str, str]] = {
    NewToken: {
        **_TIMES,
        "metadata": _METADATA_TEXT,
        "account": "the account that it is bound to, which exists.",
    },
    TokenUpdate: {**_TIMES, "metadata": f"{_METADATA_TEXT} It is merged into what is there."},
    Restrictions: _RESTRICTIONS_TEXTS,
    RestrictionsUpdate: _RESTRICTIONS_TEXTS,
    RateLimit: {"timeWindow": "in seconds."},
    RateLimitUpdate: {"timeWindow": "in seconds."},
    Rotation: {"grace": "seconds. A token that rotates itself may be allowed less, by default one day."},
    EmailEngineToken: {
        "description": f"at most {rules.MAX_DESCRIPTION} characters; white space around it is removed.",
        "metadata": (
            "a JSON text, or an object. A JSON text that is no object is kept under the key `emailengine`. "
            f"At most {rules.MAX_METADATA} bytes as JSON."
        ),
        "notBefore": _TIMES["notBefore"],
        "expires": (
            f"a date or a time with its zone, in the future. A later one than {LONGEST.days} days from now becomes that."
        ),
    },
    EmailEngineRestrictions: {
        "addresses": "IP addresses and networks, or one; host bits are ignored.",
        "referrers": f"patterns of visible ASCII characters, with at most {rules.MAX_WILDCARDS} `*`, or one.",
    },
}
"""What the bounds cannot say, by type and field."""


def add_bounds(schemas: Mapping[str, Object]) -> None:
    """Adds the bounds to the schemas of these types, by name."""
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
