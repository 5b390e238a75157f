"""All operations and messages."""

from collections.abc import Mapping
from typing import Any

from tallystick.contracts import (
    accounts,
    audit,
    events,
    imports,
    messages as basics,
    metrics,
    operation,
    propagation,
    quotas,
    records,
    sessions,
    tokens,
    verification,
)
from tallystick.contracts.accounts import (
    ADD_ACCOUNT,
    DELETE_ACCOUNT,
    GET_ACCOUNT,
    GET_ACCOUNT_LOG,
    LIST_ACCOUNTS,
)
from tallystick.contracts.messages import Message
from tallystick.contracts.operation import Operation
from tallystick.contracts.propagation import ACKNOWLEDGED, CHANGED, SETTLE, Acknowledged, ChangeNotice
from tallystick.contracts.quotas import RECALLED, RecallQuota
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    FIND_REJECTED_REQUESTS,
    GET_LOG,
    GET_TOKEN,
    GET_USE,
    LIST_TOKENS,
    REVOKE_ALL,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
)

ADMINISTRATIVE: tuple[Operation[Any, Any], ...] = (
    CREATE_TOKEN,
    EDIT_TOKEN,
    ROTATE_TOKEN,
    REVOKE_TOKEN,
    REVOKE_ALL,
    GET_TOKEN,
    LIST_TOKENS,
    GET_LOG,
    GET_USE,
    FIND_REJECTED_REQUESTS,
    ADD_ACCOUNT,
    GET_ACCOUNT,
    LIST_ACCOUNTS,
    GET_ACCOUNT_LOG,
    DELETE_ACCOUNT,
)
"""What edges ask for on behalf of a client. An operator asks for the same with `Operation.by_operator`."""

NOTICES_TO_EDGES: Mapping[str, type[Message]] = {CHANGED: ChangeNotice, RECALLED: RecallQuota}
"""By subject, the messages that the tokens service publishes to every edge."""
NOTICES_FROM_EDGES: Mapping[str, type[Message]] = {ACKNOWLEDGED: Acknowledged}
"""By subject, the messages that every edge publishes to all replicas of the tokens service."""

_MODULES = (
    records,
    audit,
    verification,
    quotas,
    tokens,
    imports,
    sessions,
    propagation,
    accounts,
    metrics,
    events,
)


def declared() -> list[Operation[Any, Any]]:
    """Every operation, once."""
    return [value for module in _MODULES for value in vars(module).values() if isinstance(value, Operation)]


def operations() -> list[Operation[Any, Any]]:
    """Every operation on every subject that is served, by subject."""
    return sorted(
        [*declared(), *(operation.by_operator for operation in (*ADMINISTRATIVE, SETTLE))],
        key=lambda operation: operation.subject,
    )


def messages() -> list[type[Message]]:
    """Every type of message: requests, replies, events, and the types of their fields."""
    types = [
        value
        for module in (basics, operation, *_MODULES)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Message) and value is not Message
    ]
    return list(dict.fromkeys(types))
