"""The page about subjects and messages on NATS, made from the AsyncAPI document.

`.venv/bin/python -m tallystick_server.runtime.nats_reference docs` writes docs/asyncapi.json and docs/nats.md.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tallystick_server.runtime.asyncapi import Object, document

INTRODUCTION = """\
# Subjects and messages on NATS

For authors of services on NATS. [services.md](services.md) shows how to connect one, [permissions.md](permissions.md) lists
what each NATS user may do. [asyncapi.json](asyncapi.json) holds the same as an AsyncAPI document, for code generators and
viewers. `just nats-reference` writes both from `shared/tallystick/contracts`.
"""


def page(api: Object) -> str:
    """The page of an AsyncAPI document, as Markdown."""
    tables = {"Requests": _requests(api), "Notices": _notices(api), "Events": _events(api)}
    parts = [INTRODUCTION, api["info"]["description"]]
    for title, rows in tables.items():
        parts += [f"## {title}\n", *rows, ""]
    return "\n".join([*parts, "## Messages\n", *_messages(api)])


def _requests(api: Object) -> Iterator[str]:
    yield "| subject | request | reply | answered within | changes something | propagates to edges |"
    yield "|---|---|---|---|---|---|"
    for operation, channel in _operations(api):
        if "reply" in operation:
            (request,) = channel["messages"].values()
            flags = ["yes" if operation[flag] else "" for flag in ("x-changes-something", "x-propagates")]
            yield (
                f"| `{channel['address']}` | {_type(request['payload'])} | {_type(operation['reply']['messages'][0])} "
                f"| {operation['x-timeout-s']:g} s | {' | '.join(flags)} |"
            )


def _notices(api: Object) -> Iterator[str]:
    yield "| subject | message | from | to |"
    yield "|---|---|---|---|"
    for operation, channel in _operations(api):
        if "reply" not in operation and "parameters" not in channel:
            (message,) = channel["messages"].values()
            ends = ["the tokens service", "every edge"]
            from_, to = ends if operation["action"] == "send" else reversed(ends)
            yield f"| `{channel['address']}` | {_type(message['payload'])} | {from_} | {to} |"


def _events(api: Object) -> Iterator[str]:
    yield "| subject | message | data | publishers |"
    yield "|---|---|---|---|"
    for _, channel in _operations(api):
        if "parameters" in channel:
            (message,) = channel["messages"].values()
            event, data = message["payload"]["allOf"]
            names = channel["parameters"]["publisher"].get("enum", ["any"])
            yield f"| `{channel['address']}` | {_type(event)} | {_type(data['properties']['data'])} | {', '.join(names)} |"


def _operations(api: Object) -> Iterator[tuple[Object, Object]]:
    """Each operation with its channel."""
    for name, operation in api["operations"].items():
        yield operation, api["channels"][name]


def _messages(api: Object) -> Iterator[str]:
    for name, schema in api["components"]["schemas"].items():
        yield f"### {name}\n"
        if "description" in schema:
            yield schema["description"] + "\n"
        if schema["properties"]:
            yield "| field | type | |\n|---|---|---|"
        for field, part in schema["properties"].items():
            about = [part["description"]] if "description" in part else []
            if field in schema["required"]:
                about.append("required")
            elif part.get("default"):
                about.append(f"default `{json.dumps(part['default'])}`")
            yield f"| `{field}` | {_type(part)} | {'; '.join(about)} |"
        yield ""


def _type(schema: Object) -> str:
    match schema:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": options}:
            return " or ".join(map(_type, options))
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": kind}:
            return f"{kind} ({schema['format']})" if "format" in schema else str(kind)
    return "anything"


def write(folder: Path) -> None:
    """Writes the document and the page into a folder."""
    api = document()
    (folder / "asyncapi.json").write_text(json.dumps(api, indent=2) + "\n")
    (folder / "nats.md").write_text(page(api))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
