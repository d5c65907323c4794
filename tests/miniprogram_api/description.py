"""Holds answers and examples against the OpenAPI document: the few words of JSON Schema that it uses."""

from __future__ import annotations

import re
from typing import Any

from miniprogram_api.openapi import OPERATIONS, document

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def problems(value: Any, schema: dict[str, Any], at: str = "$") -> list[str]:
    """What is wrong with a value; a field that the schema does not know is wrong too."""
    if "$ref" in schema:
        return problems(value, document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]], at)
    for word in ("oneOf", "anyOf"):
        if word in schema:
            found = [problems(value, choice, at) for choice in schema[word]]
            return [] if any(not choice for choice in found) else min(found, key=len)
    types = schema.get("type", [])
    types = types if isinstance(types, list) else [types]
    if types and not any(_is(value, kind) for kind in types):
        return [f"{at}: {type(value).__name__} is not {'/'.join(types)}"]
    if value is None:
        return []
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} is not one of {schema['enum']}"]
    if isinstance(value, dict):
        return _object_problems(value, schema, at)
    if isinstance(value, list):
        return [one for number, item in enumerate(value) for one in problems(item, schema["items"], f"{at}[{number}]")]
    return []


def _object_problems(value: dict[str, Any], schema: dict[str, Any], at: str) -> list[str]:
    found = [f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value]
    known = schema.get("properties", {})
    more = schema.get("additionalProperties", not known)
    for name, part in value.items():
        if name in known:
            found += problems(part, known[name], f"{at}.{name}")
        elif more is False or (more is True and known):
            found.append(f"{at}.{name} is not described")
        elif isinstance(more, dict):
            found += problems(part, more, f"{at}.{name}")
    return found


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def undescribed(method: str, path: str, status: int, body: Any) -> list[str]:
    """How an answer differs from what the document says; nothing for addresses that it does not describe."""
    for operation in OPERATIONS:
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(operation.path))
        if operation.method == method.lower() and re.fullmatch(pattern, path.partition("?")[0]):
            responses = document()["paths"][operation.path][operation.method]["responses"]
            if str(status) not in responses:
                return [f"{method} {path} answers {status}, which is not described"]
            content = responses[str(status)].get("content")
            if content is None:
                return []
            described = content["application/json"]
            if status >= 400 and "error" in body and body["error"]["code"] not in described["examples"]:
                return [f"{method} {path} answers {body['error']['code']}, which is not described"]
            return problems(body, described["schema"])
    return []
