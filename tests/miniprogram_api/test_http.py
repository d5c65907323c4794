"""How every answer looks, whatever was asked."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from urllib.parse import urlsplit

import pytest

from core.errors import NotReached, ServiceUnavailable
from core.institutions import Institutions
from miniprogram_api.app import build_app
from miniprogram_api.errors import STATUS
from miniprogram_api.limits import ASK, START
from tests.miniprogram_api.conftest import Serve
from tests.miniprogram_api.phone import Phone, in_both_languages
from tests.support.house import House


async def raw(base_url: str, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """What comes back for these bytes, until the server hangs up or has said everything."""
    address = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(data)
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = b"" if data.startswith(b"HEAD") else await reader.readexactly(int(headers.get("content-length", 0)))
    writer.close()
    return int(head[0].split()[1]), headers, body


async def test_errors_of_the_server_have_our_shape(phone: Phone) -> None:
    nowhere = await in_both_languages(phone, lambda: phone.get("/api/v1/nothing"))
    assert nowhere["code"] == "not_found"
    wrong = await phone.ask("PUT", "/api/v1/payments")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert (await phone.get("/n/abc")).code == "method_not_allowed"
    assert (await phone.get("/api/v1/patients/not-a-number/bills")).code == "not_found"
    status, headers, _ = await raw(phone.base_url, b"HEAD /api/v1/patients HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (status, headers["content-type"]) == (405, "application/json")
    status, headers, body = await raw(phone.base_url, b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (status, headers["content-type"]) == (400, "application/json")
    assert json.loads(body)["error"]["code"] == "invalid_request"
    status, _, body = await raw(phone.base_url, b"nonsense\r\n\r\n")
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_request")
    for path in (b"/api/v1/patients/%00/bills", b"/n/%ff", b"/api/v1/payments/%00", b"/api/v1/payments/%e4%bd"):
        status, _, body = await raw(phone.base_url, b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (status, "error" in json.loads(body)) in ((404, True), (405, True), (401, True))


async def test_a_word_longer_than_what_it_is_looked_for_in_is_not_found(phone: Phone) -> None:
    for length in (33, 65, 128):
        word = "7" * length
        assert (await phone.get(f"/api/v1/payments/{word}")).code == "not_found"
        for path in (f"/h/{word}/", f"/p/{word}"):
            assert (await raw(phone.base_url, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()))[0] == 404
        for path in (f"/n/{word}", f"/his/v1/events/{word}", f"/his/v1/bill-links/{word}"):
            assert (await phone.post(path)).code == "not_found"
        for institution in ("renhe", word):
            body = {"institution": institution, "app_id": word, "code": word}
            assert (await phone.post("/api/v1/sessions", body)).code in ("not_found", "invalid_request")


async def test_headers_of_every_answer(phone: Phone) -> None:
    seen = set()
    for path in ("/api/v1/patients", "/api/v1/nothing", "/health/live", "/api/docs"):
        answer = await phone.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 4


async def test_a_callers_request_id_is_not_taken_over(phone: Phone) -> None:
    answer = await phone.get("/health/live", headers={"x-request-id": "a\tb"})
    assert answer.headers["x-request-id"] != "a\tb"


async def test_our_own_mistake_is_told_as_a_sentence(
    house: House, phone: Phone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any) -> None:
        raise ValueError("select secret from patient where name = '王秀兰'")

    monkeypatch.setattr(type(house.services.patients), "bound", broken)
    error = await in_both_languages(phone, lambda: phone.get("/api/v1/patients"))
    assert set(error) == {"code", "message", "request_id"}
    assert error["code"] == "internal_error"
    assert "secret" not in json.dumps(error)
    failed = [record for record in caplog.records if record.getMessage() == "request_failed"]
    assert [record.exc_info is not None for record in failed] == [True, True]


async def test_a_lost_database_is_told_as_come_again(
    house: House, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any) -> None:
        raise ServiceUnavailable()

    monkeypatch.setattr(type(house.services.patients), "bound", lost)
    error = await in_both_languages(phone, lambda: phone.get("/api/v1/patients"))
    assert error["code"] == "service_unavailable"
    answer = await phone.get("/api/v1/patients")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


async def test_an_answer_or_a_request_that_takes_too_long_has_our_shape(
    house: House, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The web server's own patience ends in the middle of a handler, and of a request that never comes whole."""

    async def hangs(*_: Any) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr("miniprogram_api.health.rows", hangs)
    monkeypatch.setattr(Institutions, "profile_by_code", hangs)
    app = build_app(house.services, session_key=b"k" * 32, name="impatient")
    app.config.update(RESPONSE_TIMEOUT=0.2, REQUEST_TIMEOUT=0.2)
    async with serve(app) as url:
        late = raw(url, b"GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n")
        page = raw(url, b"GET /h/renhe/bills/P/-/7?a=b HTTP/1.1\r\nhost: x\r\naccept-language: en\r\n\r\n")
        partly = raw(url, b"GET /api/v1/patients HTTP/1.1\r\nhost: x\r\n")
        (status, headers, body), (shown, of_page, html), (cut, _, said) = await asyncio.gather(late, page, partly)
    assert (status, headers["retry-after"], json.loads(body)["error"]["code"]) == (503, "5", "took_too_long")
    assert (shown, of_page["retry-after"], of_page["content-type"]) == (503, "5", "text/html; charset=utf-8")
    assert "Still working on it" in html.decode()
    assert 'href="/h/renhe/bills/P/-/7?a=b">Look again' in html.decode()
    assert (cut, json.loads(said)["error"]["code"]) == (408, "request_timeout")


async def test_a_counterpartys_trouble_that_nobody_translated(
    house: House, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise NotReached("10.0.0.7:1521")

    monkeypatch.setattr(type(house.services.patients), "bound", broken)
    answer = await phone.get("/api/v1/patients")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert "10.0.0.7" not in json.dumps(answer.body)


async def test_one_log_line_for_each_request_and_nothing_personal_in_it(
    house: House, phone: Phone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="zhenfu.api")
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    order_no = await phone.pays(patient, bill)
    await phone.get(f"/api/v1/patients/{patient}/bills/-/{bill}")
    await phone.get(f"/api/v1/payments/{order_no}")
    lines = [record for record in caplog.records if record.getMessage() == "request"]
    fields = [getattr(record, "fields") for record in lines]  # noqa: B009  (set through `extra`)
    assert [(line["method"], line["route"], line["status"]) for line in fields] == [
        ("POST", "/api/v1/patients", 201),
        ("POST", "/api/v1/payments", 201),
        ("GET", "/api/v1/patients/<patient_id:uuid>/bills/<branch:str>/<bill_id:str>", 200),
        ("GET", "/api/v1/payments/<order_no:str>", 200),
    ]
    assert all(line["ms"] > 0 and line["request_id"] for line in fields)
    everything = repr([record.__dict__ for record in caplog.records])
    person = house.his.patients["P10001"]
    for secret in (person.name, *person.phones, person.identifiers[0][1], phone.token, bill):
        assert secret not in everything


async def test_health(house: House, phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await phone.done("GET", "/health/live") == {"status": "ok"}
    assert await phone.done("GET", "/health/ready") == {"status": "ok"}

    async def away(statement: str) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr("miniprogram_api.health.rows", away)
    answer = await phone.get("/health/ready")
    assert (answer.status, answer.body) == (503, {"status": "database_away"})


async def test_a_payer_may_not_ask_without_end(phone: Phone) -> None:
    for _ in range(ASK.most):
        assert (await phone.get("/api/v1/patients")).status == 200
    answer = await phone.get("/api/v1/patients")
    assert (answer.status, answer.code) == (429, "too_many_requests")
    assert answer.headers["retry-after"] == "60"


async def test_starting_is_counted_by_itself(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    for _ in range(START.most):
        assert (await phone.start(patient, "none")).code == "not_found"
    assert (await phone.start(patient, "none")).code == "too_many_requests"
    assert (await phone.bills(patient))["count"] == 0


def test_every_request_error_has_a_status_and_a_sentence() -> None:
    from core import errors
    from core.texts import ERRORS

    kinds: list[type[errors.RequestError]] = [errors.RequestError, *_all_below(errors.RequestError)]
    for kind in kinds:
        assert kind.code in STATUS
        assert any(key == kind.code or key.startswith(kind.code + ".") for key in ERRORS)
    assert set(STATUS) >= {key.partition(".")[0] for key in ERRORS}


def _all_below(kind: type[Any]) -> list[type[Any]]:
    return [found for child in kind.__subclasses__() for found in [child, *_all_below(child)]]
