"""The description of the local API: current, with examples, and everything in it said by a schema."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from appliance.admin.api.application import openapi

KEPT = Path("docs/openapi.json")
DOCUMENT: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def test_the_kept_description_is_current() -> None:
    assert KEPT.read_text(encoding="utf-8") == openapi(), "run scripts/openapi, and commit docs/openapi.json"


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_every_operation_says_what_it_does_who_may_and_how_it_can_fail(
    name: str, operation: dict[str, Any]
) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["x-roles"]
    assert {"401", "403", "422", "503"} <= set(operation["responses"]), name
    for status, response in operation["responses"].items():
        if status >= "400":
            assert set(response["content"]) == {"application/problem+json"}
    assert len(operation["tags"]) == 1


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(names)) == len(names)


def _used(node: Any) -> set[str]:
    """The schemas that requests and answers name."""
    if isinstance(node, list):
        return {name for each in node for name in _used(each)}
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"].rpartition("/")[2]} if "$ref" in node else set()
    return own.union(*(_used(value) for value in node.values()))


@pytest.mark.parametrize("name", sorted(_used(DOCUMENT["paths"]) - {"SettingsInForce"}))
def test_every_body_has_an_example_that_its_own_schema_allows(name: str) -> None:
    schema = SCHEMAS[name]
    if name.startswith("Page_"):
        schema = SCHEMAS[schema["properties"]["items"]["items"]["$ref"].rpartition("/")[2]]
    assert schema["examples"]
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    for example in schema["examples"]:
        validator.validate(example)
