"""docs/connect-a-hospital.md is what vendors build from: its numbers, samples and tables are tested."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.money import Fen
from core.ports import (
    RELOCK_CODES,
    BookedBill,
    ConfirmLine,
    ConfirmOrder,
    HospitalCapabilities,
    HospitalEvent,
    HospitalEventKind,
    HospitalSite,
    Identifier,
    IdentifierType,
    LockOrder,
    ReverseLine,
    ReverseOrder,
)
from hospital.check import check_site
from hospital.rest import RestHospital
from hospital.rest.mapping import FINAL_REFUSALS, OPERATIONS
from hospital.rest.signing import answer_problem, read_keys, request_headers
from simulators.clock import ManualClock
from simulators.hospital_signing import answer_headers
from simulators.kit import Request
from tests.support.hospital import LABOURER, MORNING, a_simulator, a_site, connect
from tests.support.transports import InProcessTransport
from wire.http import HttpReply, HttpRequest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "connect-a-hospital.md").read_text()
KEY_ID, SECRET = re.findall(r"Key id `(.+?)`, secret `(.+?)`", DOCUMENT)[0]
PARAMS = {"key_id": KEY_ID, "secret": SECRET}
CONFIRM_NO, LOCK_ID, BILL = "C7Q2M4X8RZD0A5N1B6V3K9T2WE", "L800488714363", "CF2026050600012"
ORDER_NO, REFUND_NO = "P1M8ZC4T7XK2D9R5A0Q6N3B8VW", "R5N0T8C2KQ7M4X1Z6B9V3A0WDE"


def _section(title: str) -> str:
    return re.split(r"\n##+ ", DOCUMENT.partition(f" {title}\n")[2], maxsplit=1)[0]


def _blocks(language: str, text: str = DOCUMENT) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", text, re.DOTALL)


def _messages() -> list[tuple[str, dict[str, str], bytes]]:
    """First line, headers in lower case, body of each message of the worked example."""
    found = []
    for block in _blocks("http", _section("Worked example")):
        head, _, body = block.partition("\n\n")
        first, *lines = head.split("\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        found.append((first, headers, body.encode()))
    return found


def _site() -> HospitalSite:
    return a_site(a_simulator(ManualClock(MORNING)), "http://his.test", params=PARAMS)


# ---------------------------------------------------------------- the worked example


def test_the_request_of_the_worked_example_is_what_we_send() -> None:
    (first, headers, body), _, _ = _messages()
    sent = request_headers(
        read_keys(PARAMS),
        target=first.removeprefix("POST "),
        nonce=headers["zhenfu-nonce"],
        now=MORNING,
        body=body,
    )
    assert {name.lower(): value for name, value in sent.items()} == headers


def test_the_answer_of_the_worked_example_is_genuine() -> None:
    (_, request, _), (status, headers, body), _ = _messages()
    problem = answer_problem(
        read_keys(PARAMS),
        headers,
        status=int(status),
        request_nonce=request["zhenfu-nonce"],
        body=body,
        now=MORNING,
    )
    assert problem == ""


async def test_the_event_of_the_worked_example_is_believed() -> None:
    _, _, (_, headers, body) = _messages()
    clock = ManualClock(MORNING)
    hospital = RestHospital(InProcessTransport({}), clock)
    event = await hospital.read_event(_site(), headers, body, MORNING + timedelta(minutes=1))
    assert isinstance(event, HospitalEvent)
    assert (event.kind, event.his_bill_id) == (HospitalEventKind.NEW_BILL, BILL)


def test_the_command_of_the_worked_example_gives_the_signature() -> None:
    command = next(block for block in _blocks("text", _section("Worked example")) if "openssl" in block)
    made = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True)
    assert made.stdout.strip() == _messages()[0][1]["zhenfu-signature"]


# ---------------------------------------------------------------- the samples


class Scripted:
    """A transport that keeps the request and answers with a sample, signed by the simulator's code."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.request: HttpRequest | None = None

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        self.request = request
        headers = answer_headers(
            KEY_ID,
            SECRET,
            status=200,
            request_nonce=request.headers["Zhenfu-Nonce"],
            now=MORNING,
            nonce="a" * 32,
            body=self.answer,
        )
        return HttpReply(status=200, headers=headers, body=self.answer)


def _ask(hospital: RestHospital, operation: str) -> Awaitable[Any]:
    site, morning = _site(), MORNING
    card = Identifier(type=IdentifierType.HOSPITAL_CARD, value="00100005")
    lock = LockOrder(
        confirm_no=CONFIRM_NO,
        his_patient_id=LABOURER,
        his_bill_ids=(BILL,),
        until=morning + timedelta(minutes=8),
    )
    confirm = ConfirmOrder(
        confirm_no=CONFIRM_NO,
        lock_id=LOCK_ID,
        his_patient_id=LABOURER,
        lines=(ConfirmLine(his_bill_id=BILL, amount_fen=Fen(3210)),),
        order_no=ORDER_NO,
        method="wechatpay/miniprogram/wechat",
        channel_trade_no="4200002631202605061234567890",
        paid_at=datetime(2026, 5, 6, 2, 3, 11, tzinfo=UTC),
    )
    part = ReverseLine(confirm_no=CONFIRM_NO, his_bill_id=BILL, amount_fen=Fen(1280), item_ids=("1",))
    reverse = ReverseOrder(
        refund_no=REFUND_NO, order_no=ORDER_NO, his_patient_id=LABOURER, lines=(part,), reason="药品未取"
    )
    booked = [BookedBill(confirm_no=CONFIRM_NO, his_bill_id=BILL)]
    day = datetime(2026, 5, 5, 16, tzinfo=UTC)  # midnight in Shanghai
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "ping": lambda: hospital.check(site),
        "find_patients": lambda: hospital.find_patients(site, card),
        "get_patient": lambda: hospital.get_patient(site, LABOURER),
        "list_bills": lambda: hospital.list_bills(site, LABOURER),
        "list_new_bills": lambda: hospital.list_new_bills(site, morning - timedelta(minutes=30), morning),
        "get_bill": lambda: hospital.get_bill(site, BILL),
        "lock_bills": lambda: hospital.lock_bills(site, lock),
        "query_lock": lambda: hospital.query_lock(site, CONFIRM_NO),
        "release_lock": lambda: hospital.release_lock(site, CONFIRM_NO),
        "confirm_payment": lambda: hospital.confirm_payment(site, confirm),
        "query_payment": lambda: hospital.query_payment(site, CONFIRM_NO),
        "list_paid": lambda: hospital.list_paid(site, LABOURER, morning - timedelta(days=30), morning),
        "statement": lambda: hospital.statement(site, day, day + timedelta(days=1), 0),
        "refund_check": lambda: hospital.refund_check(site, LABOURER, booked),
        "confirm_refund": lambda: hospital.confirm_refund(site, reverse),
        "query_refund": lambda: hospital.query_refund(site, REFUND_NO),
        "query_red_receipt": lambda: hospital.query_red_receipt(site, "H4410982256"),
    }
    return calls[operation]()


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
async def test_each_sample_is_what_we_send_and_can_be_read(operation: str) -> None:
    request, answer = (block.encode() for block in _blocks("json", _section(operation)))
    line = Scripted(answer)
    read = await _ask(RestHospital(line, ManualClock(MORNING)), operation)
    assert line.request is not None
    assert line.request.url == f"http://his.test/zhenfu/v1/{operation}"
    assert orjson.loads(line.request.body) == orjson.loads(request)
    if operation not in ("release_lock",):
        assert read
    if operation == "get_bill":
        assert sum(item.amount_fen for item in read.items) == read.to_pay_fen


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
async def test_the_simulated_his_understands_each_sample(operation: str) -> None:
    simulator = a_simulator(ManualClock(MORNING))
    simulator.keys = {KEY_ID: SECRET}
    body = _blocks("json", _section(operation))[0].encode()
    target = f"/zhenfu/v1/{operation}"
    headers = request_headers(read_keys(PARAMS), target=target, nonce="n" * 32, now=MORNING, body=body)
    response = await simulator.handle(
        Request(
            method="POST",
            target=target,
            headers={name.lower(): value for name, value in headers.items()},
            body=body,
        )
    )
    answer = orjson.loads(response.body)
    about_a_bill = ("lock_bills", "confirm_payment", "get_bill", "refund_check", "confirm_refund")
    expected = dict.fromkeys(about_a_bill, "BILL_UNKNOWN")
    assert answer.get("code") == expected.get(operation), answer


# ---------------------------------------------------------------- the tables


def test_the_table_of_codes_is_the_list_that_we_act_on() -> None:
    final: dict[str, set[str]] = {operation: set() for operation in OPERATIONS}
    named = set()
    for codes, operations in re.findall(r"^\| (`[A-Z_`, ]+`) \|.*\| (.*?) \|$", DOCUMENT, re.MULTILINE):
        for code in re.findall(r"`([A-Z_]+)`", codes):
            named.add(code)
            for operation in [] if operations == "–" else operations.split(", "):
                final[operation].add(code)
    assert final == {operation: set(codes) for operation, codes in FINAL_REFUSALS.items()}
    assert named >= RELOCK_CODES | {"LOCK_HELD_BY_OTHER"}
    assert not (RELOCK_CODES & FINAL_REFUSALS["confirm_payment"])


def test_the_questionnaire_asks_for_every_capability() -> None:
    asked = re.findall(r"^\| `([a-z_]+)` \|", _section("3. Questionnaire"), re.MULTILINE)
    assert asked == [capability.name for capability in fields(HospitalCapabilities)]


async def test_the_check_is_described_line_by_line() -> None:
    clock = ManualClock(MORNING)
    simulator = a_simulator(clock)
    simulator.issue_bill(LABOURER)
    simulated = connect(simulator, clock, InProcessTransport({"http://127.0.0.1": simulator}), "http://127.0.0.1")
    findings = await check_site(simulated.hospital, simulated.site, clock, patient_id=LABOURER)
    described = re.findall(r"`([a-z_]+)`(?=[^|]*\|[^|]*\|\n)", _section("8. The check"))
    assert [finding.name for finding in findings] == described
