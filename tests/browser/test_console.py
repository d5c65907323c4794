"""The sandbox page without a browser: the three books' comparison, the door, and what the buttons do."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from simulators.clock import Clock, OffsetClock
from simulators.console.app import create_console
from simulators.console.comparing import Verdict, compare, totals
from simulators.console.papers import Printer
from simulators.console.phones import Person, Phones
from simulators.console.world import ConsoleWorld
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from simulators.hospital_stock import Person as HisPerson
from simulators.kit import Deliveries, Request, Response, create_app
from simulators.sms import SmsSimulator
from simulators.wechat import WechatPlatformSimulator
from simulators.wechatpay import WechatPaySimulator
from tests.support.serving import serve

ORDER = "P0123456789ABCDEFGHJKMNPQR"
NOON, LATER = "2026-05-06T12:00:00+08:00", "2026-05-06T12:05:00+08:00"

# ---------------------------------------------------------------- the three books


def a_booking(**changes: Any) -> dict[str, Any]:
    booking = {"amount_fen": 1280, "receipt_no": "S1", "paid_at": LATER, "paid_by": "mobile", "order_no": ORDER}
    return booking | changes


def a_his(
    *bookings: Mapping[str, Any], state: str = "paid", reds: tuple[Mapping[str, Any], ...] = ()
) -> dict[str, Any]:
    bill = {
        "title": "西药处方",
        "state": state,
        "to_pay_fen": 1280,
        "issued_at": NOON,
        "bookings": list(bookings),
        "red_receipts": list(reds),
    }
    return {"bills": {"CF1": bill}}


def a_channel(**changes: Any) -> dict[str, Any]:
    order = {
        "out_trade_no": ORDER,
        "state": "SUCCESS",
        "taken_fen": 1280,
        "refunded_fen": 0,
        "returning_fen": 0,
        "created_at": NOON,
    }
    return {"orders": [order | changes]}


def our_books(
    *, line: str = "confirmed", refunds: tuple[Mapping[str, Any], ...] = (), **changes: Any
) -> dict[str, Any]:
    payment = {
        "order_no": ORDER,
        "status": "paid",
        "view": "paid",
        "paid_fen": 1280,
        "created_at": NOON,
        "lines": [{"his_bill_id": "CF1", "title": "西药处方", "amount_fen": 1280, "status": line, "receipt_no": "S1"}],
        "refunds": list(refunds),
    }
    return {"payments": [payment | changes]}


NOTHING_TAKEN = {"state": "NOTPAY", "taken_fen": 0}
A_REFUND = {"amount_fen": 1280, "status": "refunded"}


@pytest.mark.parametrize(
    ("his", "channel", "ours", "verdict", "said"),
    [
        (a_his(a_booking()), a_channel(), our_books(), Verdict.AGREE, "三本账一致"),
        (
            a_his(state="cancelled"),
            a_channel(state="REFUND", refunded_fen=1280),
            our_books(line="returned", view="returned", refunds=(A_REFUND,)),
            Verdict.AGREE,
            "钱已原路退回，三本账一致",
        ),
        (
            a_his(state="unpaid"),
            a_channel(**NOTHING_TAKEN),
            our_books(line="waiting", status="pending", view="paying", paid_fen=0),
            Verdict.MOVING,
            "等待付款",
        ),
        (
            a_his(state="unpaid"),
            a_channel(),
            our_books(line="waiting", status="pending", view="paying", paid_fen=0),
            Verdict.MOVING,
            "微信支付已收款，诊付正在核实",
        ),
        (
            a_his(a_booking()),
            a_channel(),
            our_books(line="confirming", view="confirming"),
            Verdict.MOVING,
            "已收款，等待医院记账",
        ),
        (
            a_his(state="unpaid"),
            a_channel(),
            our_books(line="returning", view="returning", refunds=({"amount_fen": 1280, "status": "pending"},)),
            Verdict.MOVING,
            "正在原路退款",
        ),
        (
            a_his(state="unpaid"),
            a_channel(state="CLOSED", taken_fen=0),
            our_books(line="void", status="closed", view="not_paid", paid_fen=0),
            Verdict.NOTHING,
            "微信支付已关闭，没有收款，三本账一致",
        ),
        (
            a_his(state="unpaid"),
            a_channel(),
            our_books(line="void", status="closed", view="not_paid", paid_fen=0),
            Verdict.DIFFER,
            "微信支付收了 12.80 元，诊付记了 0.00 元",
        ),
        (
            a_his(state="unpaid"),
            a_channel(),
            our_books(),
            Verdict.DIFFER,
            "医院记账 0.00 元，诊付认为是 12.80 元",
        ),
        (
            a_his(a_booking()),
            a_channel(state="REFUND", refunded_fen=500),
            our_books(),
            Verdict.DIFFER,
            "微信支付退了 5.00 元，诊付记了 0.00 元",
        ),
        (
            a_his(a_booking(), reds=({"receipt_no": "S1", "amount_fen": 1280},)),
            a_channel(),
            our_books(),
            Verdict.DIFFER,
            "医院记账 0.00 元，诊付认为是 12.80 元",
        ),
        (
            a_his(a_booking(amount_fen=640), a_booking(amount_fen=640, receipt_no="S2")),
            a_channel(),
            our_books(),
            Verdict.DIFFER,
            "医院把同一张处方记了两次账",
        ),
        (a_his(a_booking()), a_channel(), {"payments": []}, Verdict.DIFFER, "诊付没有这笔订单"),
        (a_his(state="unpaid"), a_channel(**NOTHING_TAKEN), {"payments": []}, Verdict.NOTHING, "没有收款"),
        (a_his(a_booking()), {"orders": []}, {"payments": []}, Verdict.DIFFER, "诊付没有这笔订单"),
    ],
)
def test_an_order_is_judged_by_what_all_three_say(
    his: dict[str, Any], channel: dict[str, Any], ours: dict[str, Any], verdict: Verdict, said: str
) -> None:
    row = next(row for row in compare(his, channel, ours) if row.key == ORDER)
    assert (row.verdict, row.said) == (verdict, said)


@pytest.mark.parametrize(
    ("red", "channel", "line", "his_word", "held"),
    [
        ({"money_by": "hospital_cash"}, {}, {"status": "returned", "paid_out_fen": 1280}, "已红冲", 1280),
        ({"money_by": "hospital_cash", "amount_fen": 280}, {}, {"paid_out_fen": 280}, "部分红冲", 1280),
        ({"amount_fen": 280}, {"refunded_fen": 280}, {"refunded_fen": 280}, "部分红冲", 1000),
        ({}, {"refunded_fen": 1280}, {"status": "returned", "refunded_fen": 1280}, "已红冲", 0),
    ],
)
def test_what_the_cashier_takes_back_agrees_whoever_gives_the_money(
    red: dict[str, Any], channel: dict[str, Any], line: dict[str, Any], his_word: str, held: int
) -> None:
    """Cash out of the hospital's till does not touch the phone's money; the way it came it leaves all three books."""
    taken_back = {"receipt_no": "S1", "amount_fen": 1280, "money_by": "us_original_route"} | red
    ours = our_books(refunds=({"amount_fen": channel["refunded_fen"], "status": "refunded"},) if channel else ())
    ours["payments"][0]["lines"][0] |= line
    (row,) = compare(his := a_his(a_booking(), reds=(taken_back,)), pay := a_channel(**channel), ours)
    assert (row.verdict, row.his.word) == (Verdict.AGREE, his_word)
    assert [entry.fen for entry in (row.his, row.wechatpay, row.ours)] == [held] * 3
    assert set(totals(his, pay, ours).values()) == {held}
    assert ("窗口退现金" in " ".join(row.his.notes)) == (red.get("money_by") == "hospital_cash")


def test_the_book_that_stands_alone_is_named() -> None:
    row = compare(a_his(a_booking()), a_channel(refunded_fen=500), our_books())[0]
    assert (row.verdict, row.off) == (Verdict.DIFFER, ["wechatpay"])
    assert compare(a_his(a_booking()), a_channel(), our_books())[0].off == []


def test_each_refund_is_shown_with_what_both_say_of_it() -> None:
    channel = a_channel(state="REFUND", refunded_fen=500, returning_fen=300) | {
        "refunds": [
            {"out_trade_no": ORDER, "out_refund_no": "R1", "refund_fen": 500, "state": "SUCCESS", "by_hand": False},
            {"out_trade_no": ORDER, "out_refund_no": "X9", "refund_fen": 300, "state": "PROCESSING", "by_hand": True},
            {"out_trade_no": "P-OTHER", "out_refund_no": "R2", "refund_fen": 1, "state": "SUCCESS", "by_hand": False},
        ]
    }
    ours = our_books(
        refunds=(
            {"refund_no": "R1", "amount_fen": 500, "status": "pending", "cause": "BILL_CANCELLED"},
            {"refund_no": "R3", "amount_fen": 100, "status": "approved", "cause": "surplus"},
        )
    )
    row = compare(a_his(a_booking()), channel, ours)[0]
    shown = [(each.refund_no, each.cause, each.wechatpay, each.ours, each.same) for each in row.refunds]
    assert shown == [
        ("R1", "处方已作废", "已到账", "退款处理中", False),
        ("R3", "重复支付", "没有记录", "准备发出", True),
        ("X9", "在商户平台手工退款", "退款处理中", "没有记录", False),
    ]


def test_a_bill_that_nobody_pays_by_phone_has_a_row_of_its_own() -> None:
    (unpaid,) = compare(a_his(state="unpaid"), {}, {})
    (window,) = compare(a_his(a_booking(paid_by="window", order_no="")), {}, {})
    assert (unpaid.key, unpaid.his.word, unpaid.verdict) == ("CF1", "未缴费", Verdict.NOTHING)
    assert (window.his.word, window.his.fen, window.his.notes) == ("窗口已收款", 1280, ("收据 S1",))


def test_orders_older_than_the_end_of_our_list_are_not_missing_in_it() -> None:
    older = a_channel(out_trade_no="P-OLDER", created_at="2026-05-05T12:00:00+08:00")["orders"]
    rows = compare(a_his(a_booking()), {"orders": a_channel()["orders"] + older}, our_books())
    assert [row.key for row in rows] == [ORDER]


def test_totals_count_what_each_book_still_holds() -> None:
    assert totals(a_his(a_booking()), a_channel(), our_books()) == {
        "his_fen": 1280,
        "wechatpay_fen": 1280,
        "ours_fen": 1280,
    }
    returned = totals(a_his(), a_channel(refunded_fen=1280), our_books(line="returned", refunds=(A_REFUND,)))
    assert returned == {"his_fen": 0, "wechatpay_fen": 0, "ours_fen": 0}


# ---------------------------------------------------------------- the door and the buttons


class Product:
    """Stands where the product would, and keeps what reached it."""

    name = "product"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        self.clock, self.faults, self.deliveries = clock, faults, Deliveries()
        self.got: list[Request] = []

    def classify(self, request: Request) -> tuple[str, str]:
        return "console", ""

    async def handle(self, request: Request) -> Response:
        self.got.append(request)
        return Response.of_json({"path": request.target}, 201, {"retry-after": "2"})


@dataclass
class Playing:
    url: str
    http: aiohttp.ClientSession
    world: ConsoleWorld
    product: Product
    chosen: list[tuple[str, str]]

    async def act(self, act: str, /, **asked: Any) -> tuple[int, dict[str, Any]]:
        async with self.http.post(f"{self.url}/api/{act}", json={"person": "P1", **asked}) as answer:
            return answer.status, await answer.json()

    async def state(self) -> dict[str, Any]:
        async with self.http.get(f"{self.url}/api/state", params={"person": "P1"}) as answer:
            assert answer.status == 200
            value: dict[str, Any] = await answer.json()
            return value


@asynccontextmanager
async def playing(folder: Path, *, name: str = "张秀英", broken_books: bool = False) -> AsyncIterator[Playing]:
    clock, faults = OffsetClock(folder / "offset"), Faults()
    product = Product(clock, faults)
    wechat = WechatPlatformSimulator(clock=clock, faults=faults)
    service = wechat.add_official_account("示范医院")
    mini = wechat.add_mini_program("示范医院缴费")
    user = wechat.add_user(name, phone="19900000001")
    hospital = HospitalSimulator(clock=clock, faults=faults, seed=1)
    hospital.add_patient(HisPerson(patient_id="P1", name=name, birth_date="1948-03-12"))

    async def books() -> dict[str, Any]:
        if broken_books:
            raise OSError("no database")
        return {"payments": []}

    async def choose_paper(mode: str, factor: str) -> None:
        chosen.append((mode, factor))

    chosen: list[tuple[str, str]] = []
    patient = Person(
        name=name,
        phone="19900000001",
        identifier_type="id_card",
        identifier="X",
        his_patient_ids=("P1",),
        open_id_user_key=user,
    )
    relative = Person(
        name="王丽",
        phone="19900000011",
        identifier_type="id_card",
        identifier="X",
        open_id_user_key=wechat.add_user("王丽", phone="19900000011"),
        patient_name=name,
        language="en-US",
    )

    async with serve(create_app(product)) as product_url:
        world = ConsoleWorld(
            wechatpay=WechatPaySimulator(clock=clock, faults=faults),
            wechat=wechat,
            hospital=hospital,
            clock=clock,
            faults=faults,
            sms=SmsSimulator(clock=clock, faults=faults),
            product_url=product_url,
            platform_url="http://127.0.0.1:1",
            institution="demo",
            miniprogram_app_id=mini.app_id,
            service_app_id=service.app_id,
            phones=Phones((patient, relative)),
            browser_ports=(9001, 9002),
            printer=Printer(public_url=product_url, institution="demo", key=b"k"),
            our_books=books,
            choose_paper=choose_paper,
        )
        async with serve(create_console(world)) as url, aiohttp.ClientSession() as http:
            yield Playing(url, http, world, product, chosen)


async def test_only_the_page_itself_may_press_the_buttons(tmp_path: Path) -> None:
    async with playing(tmp_path) as it:
        clock = f"{it.url}/api/clock"
        attempts: list[tuple[dict[str, Any], int]] = [
            ({"json": {"minutes": 1}, "headers": {"host": "evil.example"}}, 403),
            ({"json": {"minutes": 1}, "headers": {"origin": "http://evil.example"}}, 403),
            ({"data": {"minutes": "1"}}, 415),
            ({"json": [1]}, 400),
            ({"json": {"minutes": 5}}, 409),
            ({"json": {"minutes": True}}, 409),
        ]
        for request, status in attempts:
            async with it.http.post(clock, **request) as answer:
                assert answer.status == status, request
        assert it.world.clock.offset().total_seconds() == 0
        async with it.http.post(clock, json={"minutes": 10}, headers={"origin": it.url}) as answer:
            assert answer.status == 200
        assert it.world.clock.offset().total_seconds() == 600


async def test_the_page_runs_no_script_but_its_own_and_escapes_names(tmp_path: Path) -> None:
    async with playing(tmp_path, name="<img src=x onerror=alert(1)>") as it:
        async with it.http.get(f"{it.url}/") as answer:
            page = await answer.text()
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
        assert "<img" not in page
        assert " style=" not in page
        assert re.search(r"<[a-z][^>]*\son[a-z]+\s*=", page) is None


async def test_the_phone_reaches_the_patient_api_and_nothing_else(tmp_path: Path) -> None:
    async with playing(tmp_path) as it:
        headers = {
            "authorization": "Bearer t",
            "idempotency-key": "k",
            "cookie": "secret=1",
            "accept-language": "zh-CN",
        }
        target = URL(f"{it.url}/phone-api/api/v1/payments?a=%2F", encoded=True)
        async with it.http.post(target, json={"x": 1}, headers=headers) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (201, "2")
            assert await answer.json() == {"path": "/api/v1/payments?a=%2F"}
        (got,) = it.product.got
        assert got.body == b'{"x": 1}'
        assert (got.headers["authorization"], got.headers["idempotency-key"]) == ("Bearer t", "k")
        assert "cookie" not in got.headers
        for path in ("/phone-api/admin", "/phone-api/n/token", "/phone-api/api/%2e%2e/admin", "/phone-api//api/v1"):
            async with it.http.get(URL(it.url + path, encoded=True)) as answer:
                assert answer.status == 404, path
        assert len(it.product.got) == 1


async def test_the_desk_takes_amounts_as_people_write_them(tmp_path: Path) -> None:
    async with playing(tmp_path) as it:
        status, bill = await it.act("desk/issue", kind="western", amount="12.8")
        assert (status, bill["to_pay_fen"]) == (200, 1280)
        for amount in ("12.888", "-1", "一百", "1e3", "9999999"):
            assert (await it.act("desk/issue", kind="western", amount=amount))[0] == 409
        assert (await it.act("desk/issue", kind="magic"))[0] == 409
        assert (await it.act("desk/issue", person="nobody"))[0] == 409
        assert [row["bill_id"] for row in (await it.state())["bills"]] == [bill["bill_id"]]
        assert (await it.act("desk/change-amount", bill_id=bill["bill_id"], amount="20"))[0] == 200
        assert (await it.act("desk/window-pay", bill_id=bill["bill_id"]))[0] == 200
        assert await it.act("desk/cancel", bill_id=bill["bill_id"]) == (409, {"error": "处方已缴费"})
        (shown,) = (await it.state())["rows"]
        assert (shown["his"]["word"], shown["his"]["fen"]) == ("窗口已收款", 2000)
        assert (await it.act("desk/window-reverse", bill_id=bill["bill_id"], money_by="nobody"))[0] == 409
        assert it.world.hospital.bills[bill["bill_id"]].red == []
        assert (await it.act("desk/window-reverse", bill_id=bill["bill_id"], money_by="hospital_cash"))[0] == 200
        assert [red.money_by for red in it.world.hospital.bills[bill["bill_id"]].red] == ["hospital_cash"]


async def test_one_fault_is_switched_off_and_the_others_stay(tmp_path: Path) -> None:
    once, always, other = "wechatpay.notice_lost", "hospital.not_reached", "hospital.books_slowly"
    async with playing(tmp_path) as it:
        await it.act("faults", name=once, mode="once")
        await it.act("faults", name=always, mode="always")
        await it.act("faults", name=other, mode="once")
        await it.act("faults", name=other, mode="off")
        assert {on["name"]: on["mode"] for on in (await it.state())["faults_on"]} == {once: "once", always: "always"}
        assert it.world.faults.pick("wechatpay", "notice", "P1", specific=True) is not None
        assert it.world.faults.pick("wechatpay", "notice", "P1", specific=True) is None
        assert it.world.faults.pick("hospital", "confirm_payment", "C1", specific=True) is None
        assert [on["name"] for on in (await it.state())["faults_on"]] == [always]
        await it.act("faults/clear")
        assert (await it.state())["faults_on"] == []
        assert (await it.act("faults", name="no.such", mode="once"))[0] == 409


async def test_the_page_goes_on_without_our_books(tmp_path: Path) -> None:
    async with playing(tmp_path, broken_books=True) as it:
        state = await it.state()
        assert (state["ours_known"], state["rows"], state["bills"]) == (False, [], [])


async def test_the_pay_sheet_takes_six_digits_and_known_answers_only(tmp_path: Path) -> None:
    async with playing(tmp_path) as it:
        params = {"package": "prepay_id=none"}
        assert (await it.act("phone/pay", how="confirm", params=params, password="12345"))[0] == 409
        assert (await it.act("phone/pay", how="confirm", params=params, password="１２３４５６"))[0] == 409
        assert (await it.act("phone/pay", how="twice", params=params))[0] == 409
        assert await it.act("phone/pay", how="fail", params=params) == (200, {"result": "failed"})
        status, said = await it.act("phone/pay-sheet", app="service", params=params)
        assert (status, "微信拒绝打开支付" in said["error"]) == (409, True)


async def test_the_js_sdk_is_configured_by_a_signature_over_the_pages_own_address(tmp_path: Path) -> None:
    async with playing(tmp_path) as it:
        wechat, app_id = it.world.wechat, it.world.service_app_id
        secret = wechat.record.apps[app_id].secret

        async def ask(target: str) -> dict[str, Any]:
            answer: dict[str, Any] = json.loads((await wechat.handle(Request(method="GET", target=target))).body)
            return answer

        token = await ask(f"/cgi-bin/token?grant_type=client_credential&appid={app_id}&secret={secret}")
        ticket = await ask(f"/cgi-bin/ticket/getticket?type=jsapi&access_token={token['access_token']}")
        page = f"{it.world.product_url}/h/demo/scan?a=1"
        text = f"jsapi_ticket={ticket['ticket']}&noncestr=n&timestamp=1&url={page}"
        signature = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        config = {"appId": app_id, "nonceStr": "n", "timestamp": "1", "signature": signature}
        for path, values, refused in (
            ("/h/demo/scan?a=1#x", {}, ""),
            ("/h/demo/scan", {}, "invalid signature"),
            ("/h/demo/scan?a=1", {"appId": "wx0"}, "invalid appid"),
        ):
            _, said = await it.act("phone/js-config", path=path, config=config | values)
            assert said == {"refused": refused}, path


async def test_a_phone_is_handed_on_with_its_chat(tmp_path: Path) -> None:
    async with playing(tmp_path) as it:
        relative = it.world.people[1]
        await it.act("chat/follow", person=relative.key)
        await it.act("chat/say", person=relative.key, text="缴费")
        assert await it.act("phone/hand", number=1, person=relative.key) == (200, {"person": relative.key})
        assert (await it.act("phone/hand", number=3, person=relative.key))[0] == 409
        phone = (await it.state())["phones"][0]
        assert (phone["person"], phone["follows"]) == (relative.key, True)
        assert [entry["text"] for entry in phone["entries"]] == ["关注了公众号", "缴费"]
        assert await it.act("chat/say", text="缴费") == (409, {"error": "请先关注公众号"})
        assert (await it.act("chat/say", person=relative.key, text=" "))[0] == 409
        assert (await it.act("desk/issue", person=relative.key))[1] == {"error": "王丽不是患者"}


async def test_the_hospital_decides_how_its_papers_carry_a_code(tmp_path: Path) -> None:
    async with playing(tmp_path) as it:
        _, bill = await it.act("desk/issue", kind="western")

        async def look(name: str) -> tuple[int, str]:
            async with it.http.get(f"{it.url}/paper/{bill['bill_id']}/{name}") as answer:
                return answer.status, await answer.text()

        status, picture = await look("code.svg")
        assert (status, picture.startswith("<svg")) == (200, True)
        assert (await look("bars.svg"))[0] == 200
        await it.act("desk/paper", mode="barcode")
        await it.act("desk/paper", factor="none")
        assert it.chosen == [("barcode", "last_four"), ("barcode", "none")]
        assert (await look("code.svg"))[0] == 404
        assert (await it.act("desk/paper", mode="magic"))[0] == 409
        assert it.chosen == [("barcode", "last_four"), ("barcode", "none")]
