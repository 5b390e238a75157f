"""Reads the docstrings of messages, from which the reference documentation is generated."""

import re
from collections.abc import Iterable
from inspect import cleandoc
from typing import Any, NamedTuple

import msgspec

_ENTRY = re.compile(r"^    (\w+): (.*(?:\n(?: {8,}.*|))*)", re.MULTILINE)


class Docstring(NamedTuple):
    """Markdown.

    Args:
        text: what it is.
        fields: what each field is, by its name in Python.
    """

    text: str
    fields: dict[str, str]


def read(docstring: str | None) -> Docstring:
    """Separates a docstring from its ``Args:`` section."""
    text, _, arguments = f"\n{cleandoc(docstring or '')}\n".replace("``", "`").partition("\nArgs:\n")
    fields = {name: " ".join(about.split()) for name, about in _ENTRY.findall(arguments)}
    return Docstring(text.strip(), fields)


def schemas(kinds: Iterable[type[msgspec.Struct]], reference: str) -> dict[str, dict[str, Any]]:
    """The JSON schemas of messages and of all that they hold, by name, with their docstrings as descriptions.

    Args:
        kinds: the messages.
        reference: how one schema refers to another, with ``{name}`` for its name.
    """
    _, schemas = msgspec.json.schema_components(sorted(kinds, key=repr), ref_template=reference)
    for schema in schemas.values():
        about = read(schema.pop("description", None))
        if about.text:
            schema["description"] = about.text
        for name, text in about.fields.items():
            schema["properties"][_camel(schema, name)].setdefault("description", text)
    return dict(sorted(schemas.items()))


def _camel(schema: dict[str, Any], name: str) -> str:
    """The field's name on the wire."""
    first, *rest = name.split("_")
    return name if name in schema["properties"] else first + "".join(map(str.capitalize, rest))
