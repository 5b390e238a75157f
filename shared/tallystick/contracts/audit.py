"""Changes of tokens and accounts, and rejected attempts to change them."""

from typing import Any

from tallystick.contracts.messages import Message, Time


class Change(Message, frozen=True):
    """A change, from the audit.

    Args:
        time: when.
        action: the change, such as ``token.updated``.
        actor: the id of the token that acted, or the operator's name.
        address: the client's address.
        request_id: the HTTP request's id.
        details: what it changed: in ``changes`` each field with its value before (``from``) and after (``to``), and
            further members that depend on the action. Changes that were made before version 0.2 may have none.
    """

    time: Time
    action: str
    actor: str
    address: str | None
    request_id: str | None
    details: dict[str, Any] = {}


class RejectedAttempt(Message, frozen=True):
    """A change that its actor was not authorized to make.

    Args:
        time: when.
        action: the change, such as ``token.revoke.rejected``.
        code: why it was rejected.
        actor: the id of the token that acted.
        address: the client's address.
        request_id: the HTTP request's id.
    """

    time: Time
    action: str
    code: str
    actor: str
    address: str | None
    request_id: str | None
