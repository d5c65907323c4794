"""A HIS asks for the address of a bill's paper: signed both ways, the same bill always the same."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import aiohttp
import orjson
import pytest

from core.models import HospitalSiteRow, PaperLink, UnverifiedInbound
from core.paper import Paper
from simulators.hospital_signing import event_headers, mac
from tests.miniprogram_api.description import undescribed
from tests.miniprogram_api.phone import change_settings
from tests.miniprogram_api.test_papers_labels import texts_of
from tests.support.house import House

TARGET = "/his/v1/bill-links"


class Vendor:
    """The HIS's side, written from docs/connect-a-hospital.md."""

    def __init__(self, house: House, base_url: str, http: aiohttp.ClientSession) -> None:
        self.house, self.base_url, self.http = house, base_url, http
        self.token = ""
        self.nonces = 0

    def headers(self, body: bytes, *, target: str = TARGET) -> dict[str, str]:
        his = self.house.his
        self.nonces += 1
        self.nonce = f"{self.nonces:032d}"
        return event_headers(
            his.key_id, his.keys[his.key_id], target=target, now=self.house.clock.now(), nonce=self.nonce, body=body
        )

    async def send(self, body: bytes, headers: dict[str, str], *, path: str = "") -> tuple[int, Any, dict[str, str]]:
        path = path or f"{TARGET}/{self.token}"
        async with self.http.post(self.base_url + path, data=io.BytesIO(body), headers=headers) as answer:
            raw = await answer.read()
            if answer.status != 401:  # in the HIS's own form
                assert undescribed("POST", path, answer.status, orjson.loads(raw)) == []
            return answer.status, raw, {name.lower(): value for name, value in answer.headers.items()}

    async def ask(self, **fields: Any) -> Any:
        """What a HIS believes: a signed answer to this very request."""
        body = orjson.dumps(fields)
        status, raw, headers = await self.send(body, self.headers(body))
        his = self.house.his
        signed = f"{status}\n{self.nonce}\n{headers['zhenfu-timestamp']}\n{headers['zhenfu-nonce']}"
        assert headers["zhenfu-key"] == his.key_id
        assert headers["zhenfu-signature"] == mac(his.keys[his.key_id], signed, raw)
        assert status == 200
        return orjson.loads(raw)


@pytest.fixture
async def vendor(house: House, base_url: str, http: aiohttp.ClientSession) -> Vendor:
    await change_settings(house, paper_code="his_asks")
    vendor = Vendor(house, base_url, http)
    vendor.token = (await HospitalSiteRow.get(id=house.site_id)).event_token
    return vendor


async def read(house: House, answer: Any) -> Paper:
    assert answer["url"] == f"http://house.test/p/{answer['token']}"
    return await house.services.papers.read(answer["token"])


async def test_a_bill_has_one_address_however_often_it_is_asked_for(house: House, vendor: Vendor) -> None:
    first = await vendor.ask(bill_id="CF1", label=False)
    assert set(first) == {"outcome", "bill_id", "token", "url"}
    assert (first["outcome"], first["bill_id"]) == ("ok", "CF1")
    house.clock.advance(timedelta(days=1))
    assert await vendor.ask(bill_id="CF1") == first
    assert (await vendor.ask(bill_id="CF2"))["url"] != first["url"]
    assert (await read(house, first)).his_bill_id == "CF1"
    assert await PaperLink.all().count() == 2


async def test_a_label_is_drawn_from_the_request_with_the_name_masked(house: House, vendor: Vendor) -> None:
    answer = await vendor.ask(bill_id="CF1", label=True, name="王秀兰", issued_at="2026-05-06T23:59:59+08:00")
    assert texts_of(answer["label_svg"]) == ["仁和医院", "门诊缴费", "王*兰", "2026-05-06", "微信扫码缴费", "CF1"]
    assert "秀" not in orjson.dumps(answer).decode()
    assert all(answer[name].startswith("<svg ") for name in ("qr_svg", "barcode_svg", "label_svg"))
    unnamed = await vendor.ask(bill_id="CF1", label=True)
    assert (unnamed["url"], unnamed["qr_svg"]) == (answer["url"], answer["qr_svg"])
    assert house.his.calls["get_bill"] == house.his.calls["get_patient"] == 0


@pytest.mark.parametrize("setting", ["off", "his_makes", "barcode"])
async def test_an_institution_that_does_it_another_way_says_so(house: House, vendor: Vendor, setting: str) -> None:
    await change_settings(house, paper_code=setting)
    assert await vendor.ask(bill_id="CF1") == {"outcome": "refused", "code": "PAPERS_NOT_ASKED_FOR"}
    assert await PaperLink.all().count() == 0


@pytest.mark.parametrize("fields", [{}, {"bill_id": ""}, {"bill_id": "x" * 129}, {"bill_id": "a\nb"}, {"bill_id": []}])
async def test_a_request_without_a_usable_number(vendor: Vendor, fields: dict[str, Any]) -> None:
    assert await vendor.ask(**fields) == {"outcome": "refused", "code": "REQUEST_UNREADABLE"}
    assert await PaperLink.all().count() == 0


async def test_bytes_that_are_no_object(house: House, vendor: Vendor) -> None:
    for body in (b"[]", b"null", b"{", b'"CF1"'):
        _, raw, _ = await vendor.send(body, vendor.headers(body))
        assert orjson.loads(raw) == {"outcome": "refused", "code": "REQUEST_UNREADABLE"}


@pytest.mark.parametrize("spoiling", ["unsigned", "signature", "body", "late", "an_event", "another_key"])
async def test_whoever_is_not_proven_to_be_the_his_gets_nothing(house: House, vendor: Vendor, spoiling: str) -> None:
    body = orjson.dumps({"bill_id": "CF1", "event_id": "E1", "type": "probe"})
    headers = vendor.headers(body, target="/his/v1/events" if spoiling == "an_event" else TARGET)
    match spoiling:
        case "unsigned":
            headers = {"content-type": "application/json"}
        case "signature":
            headers["zhenfu-signature"] = headers["zhenfu-signature"][::-1]
        case "body":
            body = body.replace(b"CF1", b"CF2")
        case "late":
            house.clock.advance(timedelta(minutes=6))
        case "another_key":
            headers["zhenfu-key"] = "nobody"
    status, raw, answered = await vendor.send(body, headers)
    assert (status, orjson.loads(raw)) == (401, {"outcome": "refused", "code": "REQUEST_NOT_ACCEPTED"})
    assert "zhenfu-signature" not in answered
    assert await PaperLink.all().count() == 0
    assert await UnverifiedInbound.filter(source="hospital").count() == 1


async def test_a_request_for_an_address_is_no_event(house: House, vendor: Vendor) -> None:
    body = orjson.dumps({"bill_id": "CF1", "event_id": "E1", "type": "probe"})
    status, _, _ = await vendor.send(body, vendor.headers(body), path=f"/his/v1/events/{vendor.token}")
    assert status == 401


async def test_an_address_that_is_nobodys(house: House, vendor: Vendor) -> None:
    vendor.token = "nobody"
    body = orjson.dumps({"bill_id": "CF1"})
    status, raw, _ = await vendor.send(body, vendor.headers(body))
    assert (status, orjson.loads(raw)["error"]["code"]) == (404, "not_found")
