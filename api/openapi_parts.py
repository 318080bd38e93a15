"""Pieces of the OpenAPI document that its operations share."""

from typing import Any

REF = "#/components/schemas/{name}"


def parameter(
    name: str, description: str, example: str | None = None, schema: dict[str, Any] | None = None
) -> dict[str, Any]:
    parameter = {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema or {"type": "string"},
    }
    return parameter | ({"example": example} if example else {})


def answer(description: str, struct: str, example: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": REF.format(name=struct)}}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}}


def error(description: str) -> dict[str, Any]:
    return answer(description, "ErrorReply", None)


def retry(description: str) -> dict[str, Any]:
    header = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    return error(description) | {"headers": {"Retry-After": header}}
