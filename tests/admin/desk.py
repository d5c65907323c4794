"""A member of staff at his computer: real HTTP on loopback, every answer held against the API's own document."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from admin.openapi import OPERATIONS, document

PREFIX = "/staff/v1"
_keys = itertools.count(1)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        assert self.status >= 400, self.body
        error = self.body["error"]
        assert error["message"]
        assert error["request_id"] == self.headers["x-request-id"]
        return str(error["code"])


@dataclass(kw_only=True)
class Desk:
    """Somebody with a key."""

    base_url: str
    http: aiohttp.ClientSession
    key: str
    language: str = "zh-CN"

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """`path` below the API's; `key` is the Idempotency-Key, a fresh one when it is left out."""
        sent = {"accept-language": self.language, "authorization": f"Bearer {self.key}"}
        if method == "POST":
            sent["idempotency-key"] = key or f"click-{next(_keys)}"
        sent |= headers or {}
        async with self.http.request(
            method,
            self.base_url + PREFIX + path,
            json=body,
            headers={name: text for name, text in sent.items() if text},
        ) as answer:
            result = Answer(
                status=answer.status,
                body=await answer.json(),
                headers={name.lower(): value for name, value in answer.headers.items()},
            )
        assert result.headers["cache-control"] == "no-store"
        assert undescribed(method, path, result.status, result.body) == [], result
        return result

    async def get(self, path: str) -> Answer:
        return await self.ask("GET", path)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.ask("POST", path, body, **options)

    async def done(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The body of an answer that must be a success."""
        answer = await self.ask(method, path, body, **options)
        assert answer.status < 300, answer
        return answer.body


def undescribed(method: str, path: str, status: int, body: Any) -> list[str]:
    """How an answer differs from what the document says."""
    for operation in OPERATIONS:
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(operation.path))
        if operation.method == method.lower() and re.fullmatch(pattern, path.partition("?")[0]):
            responses = document(PREFIX)["paths"][PREFIX + operation.path][operation.method]["responses"]
            if str(status) not in responses:
                return [f"{method} {path} answers {status}, which is not described"]
            if status >= 400 and body["error"]["code"] not in responses[str(status)]["description"].split(", "):
                return [f"{method} {path} answers {body['error']['code']}, which is not described"]
            return problems(body, responses[str(status)]["content"]["application/json"]["schema"])
    return [] if path == "/openapi.json" or status >= 400 else [f"{method} {path} is not described"]


def problems(value: Any, schema: Mapping[str, Any], at: str = "$") -> list[str]:
    """What is wrong with a value; a field that the schema does not know is wrong too."""
    if "$ref" in schema:
        return problems(value, document(PREFIX)["components"]["schemas"][schema["$ref"].rpartition("/")[2]], at)
    if "oneOf" in schema:
        found = [problems(value, choice, at) for choice in schema["oneOf"]]
        return [] if any(not choice for choice in found) else min(found, key=len)
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(isinstance(value, _TYPES[kind]) for kind in types):
        return [f"{at}: {type(value).__name__} is not {types}"]
    if isinstance(value, list):
        return [one for number, item in enumerate(value) for one in problems(item, schema["items"], f"{at}[{number}]")]
    if not isinstance(value, dict) or not schema:
        return []
    known, more = schema.get("properties", {}), schema.get("additionalProperties", False)
    found_here = [f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value]
    for name, part in value.items():
        if name in known:
            found_here += problems(part, known[name], f"{at}.{name}")
        elif more is False:
            found_here.append(f"{at}.{name} is not described")
        else:
            found_here += problems(part, more, f"{at}.{name}")
    return found_here
