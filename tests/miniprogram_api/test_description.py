"""The OpenAPI document says what the program does."""

from __future__ import annotations

import re

from miniprogram_api.app import build_app
from miniprogram_api.errors import STATUS
from miniprogram_api.examples import EXAMPLES, error_example
from miniprogram_api.openapi import OPERATIONS, document
from tests.miniprogram_api.conftest import SESSION_KEY
from tests.miniprogram_api.description import problems
from tests.miniprogram_api.phone import Phone
from tests.support.house import House


def test_every_example_fits_its_schema() -> None:
    schemas = document()["components"]["schemas"]
    for name, example in EXAMPLES.items():
        assert problems(example, schemas[name]) == [], name
    for code in STATUS:
        assert problems(error_example(code), schemas["Error"]) == []


def test_every_reference_leads_somewhere() -> None:
    text = repr(document())
    names = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert names <= set(document()["components"]["schemas"])


def test_every_code_stands_at_some_route() -> None:
    described = {code for operation in OPERATIONS for code in operation.errors}
    assert described >= set(STATUS) - {
        "request_error",
        "method_not_allowed",
        "phone_code_refused",
    }  # the last on pages only


async def test_every_route_is_described_and_nothing_else(house: House) -> None:
    app = build_app(house.services, session_key=SESSION_KEY)
    routes = {
        (method.lower(), "/" + re.sub(r"<(\w+)(:\w+)?>", r"{\1}", route.path))
        for route in app.router.routes
        for method in route.methods
        if not route.path.startswith(("api/docs", "api/openapi", "h/", "h5/", "p/", "wx/"))  # pages and pushes
    }
    assert routes == {(operation.method, operation.path) for operation in OPERATIONS}


async def test_the_page_needs_nothing_from_elsewhere(phone: Phone) -> None:
    page = await phone.get("/api/docs")
    assert page.status == 200
    text = page.body.decode()
    assert "<script" not in text
    assert not re.search(r"(src|href)=.?https?:", text)
    assert all(operation.path in text for operation in OPERATIONS)
    assert "script" not in page.headers["content-security-policy"]
    assert (await phone.done("GET", "/api/openapi.json"))["openapi"] == "3.1.0"
