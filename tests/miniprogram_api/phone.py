"""A phone with the mini program open: real HTTP on loopback, on the simulated hospital."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp

from tests.support.house import ELDER, METHOD, House

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
    seen: list[Answer] = field(default_factory=list)

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, data: bytes = b""
    ) -> Answer:
        sent = {"accept-language": self.language, **(headers or {})}
        if self.token:
            sent.setdefault("authorization", f"Bearer {self.token}")
        if data:
            sent.setdefault("content-type", "application/json")
        async with self.http.request(
            method, self.base_url + path, json=body, headers=sent, data=data or None, allow_redirects=False
        ) as answer:
            text = await answer.read()
            is_json = answer.headers.get("content-type", "").startswith("application/json")
            result = Answer(
                status=answer.status,
                body=await answer.json() if is_json and text else text,
                headers={name.lower(): value for name, value in answer.headers.items()},
            )
        self.seen.append(result)
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
