"""Writes docs/nats.md from the contracts: `.venv/bin/python -m tallystick_server.runtime.asyncapi > docs/nats.md`."""

import ast
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tallystick.contracts import propagation, quotas, registry
from tallystick.contracts.imports import MAX_IMPORT_BYTES
from tallystick.contracts.operation import MAX_REQUEST_BYTES
from tallystick.rpc import batches
from tallystick.rpc.call import DEADLINE_HEADER
from tallystick_server.runtime import docstrings

INTRODUCTION = f"""\
# The subjects and messages on NATS

Made from `shared/tallystick/contracts` by `just nats-reference`; [services.md](services.md) tells how another service begins.

Payloads are JSON objects. Fields you do not know are to be skipped; new ones have defaults. Requests are answered once;
what is not told here as a reply is a [Failure](#failure), with its `code` in the header `Nats-Service-Error` too. A
request over {MAX_REQUEST_BYTES // 1024} KiB (an import: {MAX_IMPORT_BYTES // 1024} KiB) is refused, one without a reply subject is dropped.
Where a list would be over {batches.MAX_MESSAGE_BYTES:,} bytes, the reply is `bad_request`, and says how many to ask for. A request
that changes something carries the header `{DEADLINE_HEADER}`, Unix time in milliseconds: what comes later is dropped and not carried out.
`nats micro list` finds the services.

Another service may request `tallystick.v1.tokens.verify` and `tallystick.v1.tokens.verify_many`, and publish events
([permissions.md](permissions.md)).
"""


def reference() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## Requests\n", *_operations(), "## Other subjects\n", *_subjects()]
    return "\n".join([*parts, "## Messages\n", *_messages()])


def _operations() -> Iterator[str]:
    yield "| subject | request | reply | answered within | |\n|---|---|---|---|---|"
    for each in registry.operations():
        changes = "changes something" if each.mutates else ""
        changes += ", true everywhere once [Settled](#settled)" if each.settles else ""
        yield (
            f"| `{each.subject}` | {_link(each.request.__name__)} | {_link(each.reply.__name__)} "
            f"| {each.timeout_s:g} s | {changes} |"
        )
    yield ""


def _subjects() -> Iterator[str]:
    """The subjects that are no requests, with the text that stands below each."""
    yield "| subject | what |\n|---|---|"
    files = [Path(str(module.__file__)) for module in (quotas, propagation)]
    for statement, following in pairwise(
        statement for file in files for statement in ast.parse(file.read_text()).body
    ):
        match statement, following:
            case ast.Assign(value=ast.Constant(value=str(subject))), ast.Expr(
                value=ast.Constant(value=str(text))
            ):
                yield f"| `{subject}` | {' '.join(docstrings.read(text).text.split())} |"
    yield ""


def _messages() -> Iterator[str]:
    for name, schema in docstrings.schemas(registry.messages(), "{name}").items():
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


def _type(schema: dict[str, Any]) -> str:
    match schema:
        case {"$ref": name}:
            return _link(name)
        case {"anyOf": options}:
            return " or ".join(map(_type, options))
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": kind}:
            return f"{kind} ({schema['format']})" if "format" in schema else str(kind)
    return "anything"


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


if __name__ == "__main__":
    sys.stdout.write(reference())
