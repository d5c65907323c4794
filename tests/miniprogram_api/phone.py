"""A phone with the mini program open: real HTTP on loopback, on the simulated hospital."""

from __future__ import annotations

import asyncio
import io
import itertools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp

from core.models import Institution
from simulators.kit import Request, Response, deliver_one
from tests.miniprogram_api.description import undescribed
from tests.support.house import ELDER, METHOD, PUBLIC_URL, House

INSTITUTION = "renhe"
_keys = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> dict[str, Any]:
        assert self.status >= 400, self.body
        assert set(self.body) == {"error"}
        error = self.body["error"]
        assert isinstance(error, dict)
        assert error["message"]
        assert error["request_id"] == self.headers["x-request-id"]
        return error

    @property
    def code(self) -> str:
        return str(self.error["code"])


@dataclass(kw_only=True)
class Phone:
    """One person's phone. `user` is the person on the chat platform."""

    house: House
    base_url: str
    http: aiohttp.ClientSession
    user: str = ""
    app_id: str = ""
    token: str = ""
    language: str = "zh-CN,zh;q=0.9"

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, data: bytes = b""
    ) -> Answer:
        sent = {"accept-language": self.language, **(headers or {})}
        if self.token:
            sent.setdefault("authorization", f"Bearer {self.token}")
        if data:
            sent.setdefault("content-type", "application/json")
        async with self.http.request(
            method,
            self.base_url + path,
            json=body,
            headers=sent,
            data=io.BytesIO(data) if data else None,
            allow_redirects=False,
        ) as answer:
            text = await answer.read()
            is_json = answer.headers.get("content-type", "").startswith("application/json")
            result = Answer(
                status=answer.status,
                body=await answer.json() if is_json and text else text,
                headers={name.lower(): value for name, value in answer.headers.items()},
            )
        assert undescribed(method, path, result.status, result.body) == [], result
        return result

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.ask("POST", path, body, **options)

    async def done(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The body of an answer that must be a success."""
        answer = await self.ask(method, path, body, **options)
        assert answer.status < 300, answer
        return answer.body

    # ------------------------------------------------------------ what a person does

    async def sign_in(self) -> str:
        code = self.house.chat.new_login_code(self.user, self.app_id)
        body = {"institution": INSTITUTION, "app_id": self.app_id, "code": code}
        self.token = (await self.done("POST", "/api/v1/sessions", body))["token"]
        return self.token

    def binding(self, his_patient_id: str = ELDER, **changes: Any) -> dict[str, Any]:
        """What the page sends to bind this person."""
        person = self.house.his.patients[his_patient_id]
        type_, value = person.identifiers[0]
        return {
            "name": person.name,
            "identifier": {"type": type_, "value": value},
            "phone_code": self.house.chat.new_phone_code(self.user, self.app_id),
            "consent": {"version": "2026-05", "agreed": True},
            **changes,
        }

    async def bind(self, his_patient_id: str = ELDER) -> UUID:
        return UUID((await self.done("POST", "/api/v1/patients", self.binding(his_patient_id)))["patient_id"])

    def order(self, patient_id: UUID, *bill_ids: str, **changes: Any) -> dict[str, Any]:
        """What the page sends to pay these bills."""
        bills = self.house.his.bills
        return {
            "patient_id": str(patient_id),
            "bills": [{"branch": "", "bill_id": bill_id} for bill_id in bill_ids],
            "shown_fen": sum(bills[bill_id].to_pay_fen for bill_id in bill_ids if bill_id in bills),
            "method": METHOD,
            **changes,
        }

    async def start(self, patient_id: UUID, *bill_ids: str, key: str = "", **changes: Any) -> Answer:
        headers = {"idempotency-key": key or f"key-{next(_keys)}"}
        return await self.post("/api/v1/payments", self.order(patient_id, *bill_ids, **changes), headers=headers)

    async def start_until_done(self, patient_id: UUID, *bill_ids: str, key: str) -> Answer:
        """As the page does: send the same again while the first tap is being worked on."""
        async with asyncio.timeout(10):
            while (answer := await self.start(patient_id, *bill_ids, key=key)).status == 409:
                assert answer.code == "still_working", answer
                await asyncio.sleep(0.02)
        return answer

    async def pays(self, patient_id: UUID, *bill_ids: str) -> str:
        """Start, and confirm the pay sheet; returns the order number."""
        started = await self.start(patient_id, *bill_ids)
        assert started.status == 201, started
        assert self.house.pay.pay_with(started.body["pay"]["values"]) == "paid"
        return str(started.body["order_no"])

    async def payment(self, order_no: str) -> Any:
        return await self.done("GET", f"/api/v1/payments/{order_no}")

    async def bills(self, patient_id: UUID) -> Any:
        return await self.done("GET", f"/api/v1/patients/{patient_id}/bills")

    async def paid(self, patient_id: UUID) -> Any:
        return await self.done("GET", f"/api/v1/patients/{patient_id}/paid")

    async def counts(self, patient_id: UUID) -> Any:
        return await self.done("GET", f"/api/v1/patients/{patient_id}/counts")


async def change_settings(house: House, **settings: Any) -> None:
    """An operator changes what the institution has decided for itself."""
    await Institution.filter(id=house.institution_id).update(settings=settings)


async def in_both_languages(phone: Phone, call: Callable[[], Awaitable[Answer]]) -> dict[str, Any]:
    """The error of a call made twice, first in Chinese, then in English; the sentences are what they should be."""
    said = {}
    for language in ("zh-CN", "en-GB,en;q=0.8"):
        phone.language = language
        said[language[:2]] = (await call()).error
    phone.language = "zh-CN"
    assert said["zh"]["code"] == said["en"]["code"]
    assert said["zh"].get("reason") == said["en"].get("reason")
    assert re.search(r"[\u4e00-\u9fff].*。", said["zh"]["message"])
    assert re.search(r"[A-Za-z].*\.", said["en"]["message"])
    assert not re.search(r"[\u4e00-\u9fff{]", re.sub(r"[\u4e00-\u9fff]+$", "", said["en"]["message"]))
    return said["zh"]


class Post:
    """What counterparties send arrives over HTTP, or is caught on its way."""

    def __init__(self, house: House, base_url: str, http: aiohttp.ClientSession) -> None:
        self.house, self.base_url, self.http = house, base_url, http

    async def send(self, url: str, request: Request) -> Response:
        path = url.removeprefix(PUBLIC_URL)
        async with self.http.post(self.base_url + path, data=request.body, headers=request.headers) as answer:
            return Response(status=answer.status, body=await answer.read())

    async def deliver(self) -> int:
        """Everything that is due to be sent to us; returns how much."""
        count = 0
        for simulator in (self.house.pay, self.house.his):
            while await deliver_one(simulator, self.send):
                count += 1
        return count

    async def catch(self) -> list[tuple[str, Request]]:
        """What is due to be sent, taken out of the post."""
        caught: list[tuple[str, Request]] = []

        async def keep(url: str, request: Request) -> Response:
            caught.append((url, request))
            return Response(status=500)

        self.house.clock.advance(timedelta(seconds=2))
        while await deliver_one(self.house.pay, keep):
            pass
        return caught
