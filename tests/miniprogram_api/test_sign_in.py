"""Signing in and binding: who may see what, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from core.errors import ConfigurationError, NotSignedIn
from core.models import Binding, Payer
from miniprogram_api.auth import Tokens
from simulators.clock import ManualClock
from tests.miniprogram_api.conftest import SESSION_KEY, NewPhone
from tests.miniprogram_api.phone import INSTITUTION, Phone, in_both_languages
from tests.support.hospital import MORNING
from tests.support.house import ELDER, LABOURER, House


def code_of(phone: Phone) -> str:
    return phone.house.chat.new_login_code(phone.user, phone.app_id)


def sign_in(phone: Phone, **changes: str) -> dict[str, str]:
    return {"institution": INSTITUTION, "app_id": phone.app_id, "code": code_of(phone), **changes}


async def test_one_person_is_one_payer_however_often_he_signs_in(phone: Phone) -> None:
    await phone.sign_in()
    await phone.sign_in()
    assert await Payer.all().count() == 1


async def test_a_spent_code_signs_nobody_in(new_phone: NewPhone) -> None:
    phone = await new_phone(signed_in=False)
    body = sign_in(phone)
    assert (await phone.post("/api/v1/sessions", body)).status == 201
    error = await in_both_languages(phone, lambda: phone.post("/api/v1/sessions", body))
    assert error["code"] == "not_signed_in"
    assert (await phone.post("/api/v1/sessions", sign_in(phone, code="made-up"))).code == "not_signed_in"


async def test_an_institution_or_app_that_is_not_ours(new_phone: NewPhone) -> None:
    phone = await new_phone(signed_in=False)
    for changes in (
        {"institution": "nobody"},
        {"app_id": "wxffffffffffffffff"},
    ):
        assert (await phone.post("/api/v1/sessions", sign_in(phone, **changes))).code == "not_found"


async def test_a_platform_that_is_silent(house: House, new_phone: NewPhone) -> None:
    phone = await new_phone(signed_in=False)
    house.faults.rate("wechat.not_reached", 1.0)
    error = await in_both_languages(phone, lambda: phone.post("/api/v1/sessions", sign_in(phone)))
    assert error["code"] == "platform_unavailable"
    assert await Payer.all().count() == 0


async def test_a_session_ends_after_twelve_hours(house: House, phone: Phone) -> None:
    house.clock.advance(timedelta(hours=12) - timedelta(seconds=1))
    assert (await phone.get("/api/v1/patients")).status == 200
    house.clock.advance(timedelta(seconds=1))
    error = await in_both_languages(phone, lambda: phone.get("/api/v1/patients"))
    assert error["code"] == "not_signed_in"


async def test_without_a_good_token_nothing_is_said(phone: Phone) -> None:
    good, patient = phone.token, uuid4()
    head, payload, mac = good.split(".")
    wrong = [
        "",
        "x",
        "Bearer",
        f"{head}.{payload}.",
        f"{head}.{payload[:-4]}AAAA.{mac}",
        f"{head}.{payload}.{mac[:-4]}AAAA",
        f"z2.{payload}.{mac}",
        good + "A" * 300,
        "z1.é.é",
        Tokens.of_secret(phone.house.clock, b"x" * 32).issue(payer_id=uuid4(), institution_id=uuid4())[0],
    ]
    routes = [
        ("GET", "/api/v1/patients"),
        ("POST", "/api/v1/patients"),
        ("DELETE", f"/api/v1/patients/{patient}"),
        ("GET", f"/api/v1/patients/{patient}/bills"),
        ("GET", f"/api/v1/patients/{patient}/bills/-/b"),
        ("GET", f"/api/v1/patients/{patient}/paid"),
        ("GET", f"/api/v1/patients/{patient}/counts"),
        ("GET", f"/api/v1/patients/{patient}/methods"),
        ("POST", "/api/v1/payments"),
        ("GET", "/api/v1/payments/P1"),
        ("POST", "/api/v1/payments/P1/cancel"),
    ]
    for method, path in routes:
        phone.token = ""
        answer = await phone.ask(method, path)
        assert (answer.status, answer.code) == (401, "not_signed_in")
        assert answer.headers["www-authenticate"] == "Bearer"
    for token in wrong:
        headers = {"authorization": f"Bearer {token}"}
        assert (await phone.get("/api/v1/patients", headers=headers)).code == "not_signed_in"
    assert (await phone.get("/api/v1/patients", headers={"authorization": f"Basic {good}"})).code == "not_signed_in"


def test_tokens_are_made_of_a_key_that_is_long_enough() -> None:
    clock = ManualClock(MORNING)
    with pytest.raises(ConfigurationError):
        Tokens.of_secret(clock, b"short")
    tokens = Tokens.of_secret(clock, SESSION_KEY)
    payer, institution = uuid4(), uuid4()
    token, expires_at = tokens.issue(payer_id=payer, institution_id=institution)
    session = tokens.read(token)
    assert (session.payer_id, session.institution_id) == (payer, institution)
    assert session.expires_at == expires_at == MORNING + timedelta(hours=12)
    assert SESSION_KEY.decode() not in repr(tokens)
    with pytest.raises(NotSignedIn):
        Tokens.of_secret(clock, b"j" * 32).read(token)


# ---------------------------------------------------------------- binding


async def test_consent_comes_first(phone: Phone) -> None:
    body = phone.binding(consent={"version": "2026-05", "agreed": False})
    error = await in_both_languages(phone, lambda: phone.post("/api/v1/patients", body))
    assert error["code"] == "consent_needed"
    without = phone.binding()
    del without["consent"]
    assert (await phone.post("/api/v1/patients", without)).error["field"] == "consent"
    assert (await phone.post("/api/v1/patients", {**body, "consent": {"version": "1", "agreed": 1}})).status == 400
    assert await Binding.all().count() == 0
    assert (await phone.post("/api/v1/patients", {**body, "consent": {"version": "1", "agreed": True}})).status == 201


async def test_who_cannot_be_bound(house: House, phone: Phone) -> None:
    async def refused(**changes: Any) -> dict[str, Any]:
        return await in_both_languages(phone, lambda: phone.post("/api/v1/patients", phone.binding(**changes)))

    wrong_name = await refused(name="王秀梅")
    unknown = await refused(identifier={"type": "hospital_card", "value": "99999999"})
    assert wrong_name["reason"] == unknown["reason"] == "not_found"
    assert wrong_name["message"] == unknown["message"]
    strangers = await in_both_languages(phone, lambda: phone.post("/api/v1/patients", phone.binding(LABOURER)))
    assert strangers["reason"] == "phone_differs"
    not_a_card = await refused(identifier={"type": "id_card", "value": "999901194803120170"})
    assert (not_a_card["code"], not_a_card["field"]) == ("invalid_request", "identifier")
    assert not_a_card["message"] == "提交的内容有误（证件号码：身份证号码不正确），没有扣款。请改正后再试。"
    spent = phone.binding()
    await phone.bind()
    assert (await phone.post("/api/v1/patients", phone.binding())).error["reason"] == "already_bound"
    house.clock.advance(timedelta(hours=1))
    assert (await phone.post("/api/v1/patients", {**spent, "phone_code": "made-up"})).error["reason"] == "phone_code"
    assert await Binding.all().count() == 1


async def test_a_number_that_cannot_be_right_costs_no_phone_code(house: House, phone: Phone) -> None:
    body = phone.binding(identifier={"type": "id_card", "value": "123"})
    assert (await phone.post("/api/v1/patients", body)).code == "invalid_request"
    assert house.chat.books()["calls"].get("phone_number", 0) == 0
    body["identifier"] = phone.binding()["identifier"]
    assert (await phone.post("/api/v1/patients", body)).status == 201


async def test_guessing_documents_ends_soon(phone: Phone) -> None:
    for _ in range(10):
        answer = await phone.post("/api/v1/patients", phone.binding(name="某人"))
        assert answer.code == "binding_refused"
    error = await in_both_languages(phone, lambda: phone.post("/api/v1/patients", phone.binding()))
    assert (error["code"], error["retry_after_seconds"]) == ("too_many_requests", 3600)
    assert "3600秒" in error["message"]


async def test_a_silent_his_binds_nobody(house: House, phone: Phone) -> None:
    house.faults.script("hospital.request_lost", times=2)
    error = await in_both_languages(phone, lambda: phone.post("/api/v1/patients", phone.binding(ELDER)))
    assert error["code"] == "hospital_unavailable"
    assert await Binding.all().count() == 0


async def test_unbinding_what_is_not_bound(phone: Phone) -> None:
    assert (await phone.ask("DELETE", f"/api/v1/patients/{uuid4()}")).code == "not_found"
    patient = await phone.bind()
    assert (await phone.ask("DELETE", f"/api/v1/patients/{patient}")).status == 204
    assert (await phone.ask("DELETE", f"/api/v1/patients/{patient}")).code == "not_found"
    assert await phone.bind() == patient  # the same person again
