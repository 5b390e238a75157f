"""The NATS reference is a valid AsyncAPI document and contains every subject."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from tallystick.contracts import propagation, quotas, registry
from tallystick_server.runtime import asyncapi
from tests.support.paths import ROOT

API = asyncapi.document()
SPECIFICATION = ROOT / "tests/support/asyncapi/schema-3.0.0.json"


def references(part: Any) -> Iterator[str]:
    match part:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for child in part.values():
                yield from references(child)
        case list():
            for child in part:
                yield from references(child)


def resolve(reference: str) -> Any:
    value: Any = API
    for key in reference.removeprefix("#/").split("/"):
        value = value[key]
    return value


def test_the_document_is_valid_by_the_schema_of_asyncapi():
    jsonschema_rs.Draft7Validator(json.loads(SPECIFICATION.read_text())).validate(API)


def test_every_reference_can_be_resolved():
    assert all(resolve(reference) for reference in set(references(API)))


def test_every_subject_of_the_contracts_is_an_address():
    notices = {
        value
        for module in (propagation, quotas)
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith("tallystick.v1.")
    }
    assert len(notices) == 3
    addresses = {channel["address"] for channel in API["channels"].values()}
    assert notices | {operation.subject for operation in registry.operations()} <= addresses


@pytest.mark.parametrize("kind", registry.messages(), ids=lambda kind: kind.__name__)
def test_every_message_has_a_schema(kind: type):
    assert API["components"]["schemas"][kind.__name__]["type"] == "object"
