"""The AsyncAPI 3.0 document of subjects and messages on NATS, made from the contracts."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from nats.micro.request import ERROR_CODE_HEADER, ERROR_HEADER

from tallystick import VERSION
from tallystick.contracts import publishers, registry
from tallystick.contracts.events import EVENT_DATA, EVENTS_PREFIX, EVENTS_STREAM, Event
from tallystick.contracts.imports import MAX_IMPORT_BYTES
from tallystick.contracts.operation import MAX_REQUEST_BYTES, Failure, Operation
from tallystick.rpc import batches
from tallystick.rpc.call import DEADLINE_HEADER
from tallystick_server.runtime import docstrings

Object = dict[str, Any]

SCHEMA = "#/components/schemas/{name}"
HEADERS = {
    DEADLINE_HEADER: "Unix time in milliseconds.",
    ERROR_HEADER: "The code of the failure.",
    ERROR_CODE_HEADER: "The HTTP status of the code.",
}
DESCRIPTION = f"""\
Payloads are JSON objects. Skip fields that you do not know; new fields have defaults.

The reply to a request is the message named here, or a `Failure`, whose code is in the header `{ERROR_HEADER}` too.
Requests over {MAX_REQUEST_BYTES // 1024} KiB (an import: {MAX_IMPORT_BYTES // 1024} KiB) are rejected. Requests without a reply subject are dropped.
If a list would exceed {batches.MAX_MESSAGE_BYTES:,} bytes, the reply is `bad_request` and says how many items to ask for.

A request that changes something has the header `{DEADLINE_HEADER}`. After that time it is dropped. If the change
propagates to edges, it is committed when the reply arrives, and true at every edge once `Settled` says so.

`nats micro list` finds the services. Services other than Tallystick's own may request `tallystick.v1.tokens.verify` and
`tallystick.v1.tokens.verify_many`, and publish events.
"""


def document() -> Object:
    """The AsyncAPI 3.0 document of the tokens service and the metrics service."""
    requests = registry.operations()
    channels = {"reply": _reply_channel({request.reply for request in requests})}
    operations: Object = {}
    for request in requests:
        channels[request.name] = _channel(request.subject, _request_message(request))
        operations[request.name] = _request(request)
    for action, notices in (("send", registry.NOTICES_TO_EDGES), ("receive", registry.NOTICES_FROM_EDGES)):
        for subject, message in notices.items():
            name = "-".join(subject.split(".")[2:])
            channels[name] = _channel(subject, _message(message))
            operations[name] = _operation(action, name)
    for kind, data in {**EVENT_DATA, "*": None}.items():
        name = f"events-{kind}".replace(".", "-").replace("*", "any")
        channels[name] = _event_channel(kind, data)
        operations[name] = _operation("receive", name)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tallystick on NATS",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": docstrings.schemas(registry.messages(), SCHEMA)},
    }


def _request(request: Operation[Any, Any]) -> Object:
    replies = [f"#/channels/reply/messages/{kind.__name__}" for kind in (request.reply, Failure)]
    return {
        **_operation("receive", request.name),
        "reply": {
            "channel": {"$ref": "#/channels/reply"},
            "messages": [{"$ref": reply} for reply in replies],
        },
        "x-timeout-s": request.timeout_s,
        "x-changes-something": request.mutates,
        "x-propagates": request.settles,
    }


def _operation(action: str, channel: str) -> Object:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _reply_channel(kinds: set[type[Struct]]) -> Object:
    """The channel of all replies. It has no address: a reply goes to the inbox that its request names."""
    replies = [_message(kind) for kind in sorted(kinds, key=lambda kind: kind.__name__)]
    return _channel(None, _message(Failure, [ERROR_HEADER, ERROR_CODE_HEADER]), *replies)


def _request_message(request: Operation[Any, Any]) -> Object:
    return _message(request.request, [DEADLINE_HEADER] if request.mutates else [])


def _event_channel(kind: str, data: type[Struct] | None) -> Object:
    """The channel of events of one type, in which ``*`` stands for any words."""
    message = _message(Event)
    narrowed = {"properties": {"data": {"type": "object"} if data is None else _reference(data)}}
    message["payload"] = {"allOf": [message["payload"], narrowed]}
    channel = _channel(f"{EVENTS_PREFIX}{{publisher}}.{kind.replace('*', '{type}')}", message)
    channel["description"] = f"Stored in the JetStream stream `{EVENTS_STREAM}`."
    publisher: Object = {"description": "The publisher's NATS user."}
    if not publishers.may_publish("service", kind):
        publisher["enum"] = [name for name in publishers.SERVICES if publishers.may_publish(name, kind)]
    channel["parameters"] = {"publisher": publisher}
    if "*" in kind:
        channel["parameters"]["type"] = {"description": "The event's type, or the rest of it."}
    return channel


def _channel(address: str | None, *messages: Object) -> Object:
    return {"address": address, "messages": {message["name"]: message for message in messages}}


def _message(kind: type[Struct], headers: Sequence[str] = ()) -> Object:
    message: Object = {"name": kind.__name__, "payload": _reference(kind)}
    if headers:
        properties = {name: {"type": "string", "description": HEADERS[name]} for name in headers}
        message["headers"] = {"type": "object", "properties": properties}
    return message


def _reference(kind: type[Struct]) -> Object:
    return {"$ref": SCHEMA.format(name=kind.__name__)}
