"""Paper prescriptions in the mini program: every stage, every limit, and nothing that a stranger should not see."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from core.models import Binding, Guess, HospitalSiteRow, PaperGrant, Patient, Payer, Payment
from core.paper import GUESSES_AT_PAPER, GUESSES_OF_PAYER, paper_token
from miniprogram_api.app import build_app
from miniprogram_api.papers import token_of
from simulators.hospital_stock import Doctor
from tests.miniprogram_api.conftest import PAGE_WAIT_SECONDS, SESSION_KEY, NewPhone, Serve
from tests.miniprogram_api.phone import Answer, Phone, change_settings, in_both_languages
from tests.miniprogram_api.test_isolation import OTHER, another_hospital
from tests.support.fakes import held
from tests.support.house import LABOURER, PUBLIC_URL, House

PAPERS, CONSENTS = "/api/v1/papers", "/api/v1/consents"
RIGHT, WRONG = "0001", "9999"
PAPER_KEY = "a-key-for-papers-of-at-least-32-characters"


async def a_paper(house: House, his_patient_id: str = "P10001", **bill: Any) -> str:
    """The token on the paper of a fresh bill."""
    (site,) = await house.services.institutions.sites(house.institution_id)
    return await house.services.papers.link(site, house.bill(his_patient_id, **bill))


async def agree(phone: Phone, version: str = "1") -> Any:
    return await phone.done("POST", CONSENTS, {"kind": "personal", "version": version})


async def answered(phone: Phone, method: str, path: str, body: Any = None) -> Answer:
    """As the app does: ask again with the ticket while the HIS is being asked."""
    answer = await phone.ask(method, path, body)
    async with asyncio.timeout(20):
        while answer.status == 202:
            await asyncio.sleep(0.05)
            path = path.partition("?")[0]
            answer = await phone.ask(method, f"{path}?ticket={answer.body['ticket']}", body)
    return answer


async def look(phone: Phone, token: str) -> Any:
    answer = await answered(phone, "GET", f"{PAPERS}/{token}")
    assert answer.status == 200, answer
    return answer.body


async def scan(phone: Phone, **body: str) -> Answer:
    return await answered(phone, "POST", PAPERS, body)


async def guess(phone: Phone, token: str, factor: str) -> Answer:
    return await answered(phone, "POST", f"{PAPERS}/{token}/factor", {"factor": factor})


@pytest.fixture
async def stranger(house: House, new_phone: NewPhone) -> Phone:
    """Somebody with another's paper in hand."""
    await change_settings(house, paper_code="his_asks")
    return await new_phone("过路人", "19900000099")


# ---------------------------------------------------------------- the way from the paper to the receipt


async def test_from_the_paper_to_the_receipt(house: House, stranger: Phone) -> None:
    other = house.bill(total_fen=100)
    token = await a_paper(house, total_fen=8650)
    scanned = (await scan(stranger, url=f"{PUBLIC_URL}/p/{token}")).body
    assert scanned == {
        "token": token,
        "stage": "consent",
        "hospital": "仁和医院",
        "masked_name": "王*兰",
        "issued_on": "2026-05-06",
        "consent_version": "1",
        "asks_phone": True,
        "asks_document": True,
        "order_no": None,
        "patient_id": None,
        "bill": None,
        "others": [],
    }
    await agree(stranger)
    assert (await look(stranger, token))["stage"] == "factor"
    opened = (await guess(stranger, token, RIGHT)).body
    assert (opened["stage"], opened["bill"]["amount_fen"]) == ("open", 8650)
    assert opened["bill"]["items"]
    assert [each["bill_id"] for each in opened["others"]] == [other]
    patient = opened["patient_id"]
    methods = await stranger.done("GET", f"/api/v1/patients/{patient}/methods")
    assert len(methods["methods"]) == 1
    bill = opened["bill"]["bill_id"]
    assert (await stranger.done("GET", f"/api/v1/patients/{patient}/bills/-/{bill}"))["status"] == "to_pay"
    order_no = await stranger.pays(patient, bill)
    paying = await look(stranger, token)
    assert (paying["order_no"], paying["bill"]["status"]) == (order_no, "paying")
    await house.settle()
    paid = await look(stranger, token)
    assert (paid["order_no"], paid["bill"]["payable"]) == (order_no, False)
    assert (await stranger.payment(order_no))["lines"][0]["guide_text"]
    assert house.his.books()["bills"][bill]["times_booked"] == 1
    for part in ("bills", "paid", "counts", "payers"):  # a paper opens its visit and no list
        assert (await stranger.get(f"/api/v1/patients/{patient}/{part}")).code == "patient_not_bound"


async def test_a_bill_that_the_paper_does_not_open_cannot_be_paid(house: House, stranger: Phone) -> None:
    token = await a_paper(house, visit_no="MZ1")
    elsewhere = house.bill(total_fen=300, visit_no="MZ2")
    await agree(stranger)
    patient = (await guess(stranger, token, RIGHT)).body["patient_id"]
    assert (await stranger.start(patient, elsewhere)).code == "not_found"
    assert (await stranger.start(patient, house.bill(LABOURER))).code == "not_found"
    assert await Payment.all().count() == 0


async def test_who_has_bound_the_patient_sees_the_bill_at_once(house: House, phone: Phone) -> None:
    await change_settings(house, paper_code="his_asks")
    patient = await phone.bind()
    view = await look(phone, await a_paper(house))
    assert (view["stage"], view["patient_id"]) == ("open", str(patient))
    assert view["bill"]["payable"]
    assert await Guess.all().count() == 0


async def test_without_a_number_at_the_his_only_the_window_helps(house: House, stranger: Phone) -> None:
    person = house.his.patients[LABOURER]
    house.his.patients[LABOURER] = type(person)(**{**vars(person), "phones": (), "identifiers": ()})
    await agree(stranger)
    view = await look(stranger, await a_paper(house, LABOURER))
    assert (view["stage"], view["asks_phone"], view["asks_document"], view["bill"]) == ("window", False, False, None)


async def test_where_the_paper_is_enough_a_sensitive_department_still_asks(house: House, stranger: Phone) -> None:
    await change_settings(house, paper_code="his_asks", paper_factor="none", sensitive_departments=["精神"])
    sensitive = await a_paper(house, doctor=Doctor(name="孙医生", department="精神卫生科"))
    plain = await a_paper(house)
    assert (await look(stranger, plain))["stage"] == "consent"
    await agree(stranger)
    view = await look(stranger, plain)
    assert (view["stage"], view["others"]) == ("open", [])
    hidden = await look(stranger, sensitive)
    assert (hidden["stage"], hidden["bill"]) == ("factor", None)
    assert "精神" not in repr(hidden)


# ---------------------------------------------------------------- guessing


async def test_wrong_digits_are_counted_and_locked_in_the_database(house: House, stranger: Phone, serve: Serve) -> None:
    token = await a_paper(house)
    await agree(stranger)
    for left in (4, 3, 2, 1, 0):
        wrong = await guess(stranger, token, f"999{left}")
        assert (wrong.status, wrong.code, wrong.error["left"]) == (422, "factor_wrong", left)
        assert f"还可以再试{left}次" in wrong.error["message"]
    locked = await in_both_languages(stranger, lambda: guess(stranger, token, RIGHT))
    assert (locked["code"], locked["minutes"]) == ("factor_locked", 15)
    # A new program with an empty memory knows it too.
    app = build_app(house.services, session_key=SESSION_KEY, name="another", page_wait_seconds=PAGE_WAIT_SECONDS)
    async with serve(app) as url:
        there = Phone(house=house, base_url=url, http=stranger.http, user=stranger.user, app_id=stranger.app_id)
        there.token = stranger.token
        assert (await guess(there, token, RIGHT)).status == 429
    assert (await look(stranger, token))["bill"] is None
    assert await PaperGrant.all().count() == 0
    house.clock.advance(timedelta(minutes=15))
    assert (await guess(stranger, token, RIGHT)).body["stage"] == "open"


async def test_many_guesses_at_once_are_no_more_than_the_limit(house: House, stranger: Phone) -> None:
    token = await a_paper(house)
    await agree(stranger)
    answers = await asyncio.gather(*(guess(stranger, token, f"{number:04d}") for number in range(5000, 5040)))
    codes = [answer.code for answer in answers]
    assert codes.count("factor_wrong") <= 5
    assert set(codes) <= {"factor_wrong", "factor_locked", "hospital_unavailable", "too_many_requests"}
    assert await PaperGrant.all().count() == 0
    house.clock.advance(timedelta(minutes=1))
    assert (await guess(stranger, token, RIGHT)).code == "factor_locked"


async def test_a_stranger_locks_nobody_out_of_his_own_bill(house: House, stranger: Phone, new_phone: NewPhone) -> None:
    family = await new_phone()
    patient = await family.bind()
    token = await a_paper(house)
    await agree(stranger)
    for number in range(6):
        await guess(stranger, token, f"999{number}")
    await Guess.filter(actor="").update(count=GUESSES_AT_PAPER.most)
    assert (await guess(stranger, token, RIGHT)).code == "factor_locked"
    view = await look(family, token)
    assert (view["stage"], view["patient_id"]) == ("open", str(patient))
    await family.pays(patient, view["bill"]["bill_id"])


@pytest.mark.parametrize("factor", ["", "1", "12345", "abcde", "一二三四", "00-1", "0001\u0000", 1, None])
async def test_what_cannot_be_four_characters_is_refused_and_costs_nothing(
    house: House, stranger: Phone, factor: Any
) -> None:
    token = await a_paper(house)
    await agree(stranger)
    answer = await guess(stranger, token, factor)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert await Guess.all().count() == 0


async def test_letters_count_in_either_case(house: House, stranger: Phone) -> None:
    person = house.his.patients[LABOURER]
    changed = {**vars(person), "phones": (), "identifiers": (("id_card", "11010519491231002X"),)}
    house.his.patients[LABOURER] = type(person)(**changed)
    token = await a_paper(house, LABOURER)
    await agree(stranger)
    assert (await guess(stranger, token, "002y")).code == "factor_wrong"
    assert (await guess(stranger, token, "002x")).body["stage"] == "open"


async def test_consent_comes_before_the_first_guess(house: House, stranger: Phone) -> None:
    token = await a_paper(house)
    refused = await in_both_languages(stranger, lambda: guess(stranger, token, RIGHT))
    assert refused["code"] == "consent_needed"
    await change_settings(house, paper_code="his_asks", privacy_version="2")
    assert (await stranger.post(CONSENTS, {"kind": "personal", "version": "1"})).code == "consent_needed"
    await agree(stranger, version="2")
    await change_settings(house, paper_code="his_asks", privacy_version="3")
    assert (await look(stranger, token))["stage"] == "consent"  # a new notice is asked for anew
    assert (await guess(stranger, token, RIGHT)).code == "consent_needed"
    assert await Guess.all().count() == 0


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize("token", ["x", "A" * 22, "A" * 512, "h1.e30.AAAA", "h1..", "..", "%E4%B8%AD", "a%00b"])
async def test_a_guessed_token_is_nobodys_paper(house: House, stranger: Phone, token: str) -> None:
    await a_paper(house)
    await agree(stranger)
    for answer in (await answered(stranger, "GET", f"{PAPERS}/{token}"), await guess(stranger, token, RIGHT)):
        assert (answer.status, answer.code) == (404, "not_found")


async def test_the_same_sentence_for_every_paper_that_is_not_there(house: House, stranger: Phone) -> None:
    missing = await in_both_languages(stranger, lambda: scan(stranger, token="A" * 22))
    assert (missing["code"], missing["reason"]) == ("not_found", "paper")
    gone = await a_paper(house)
    house.his.bills.popitem()
    assert (await scan(stranger, token=gone)).error["message"] == missing["message"]


async def test_the_paper_of_a_cancelled_bill_says_so_and_is_not_paid(house: House, stranger: Phone) -> None:
    token = await a_paper(house)
    await agree(stranger)
    opened = (await guess(stranger, token, RIGHT)).body
    house.his.cancel(opened["bill"]["bill_id"])
    bill = (await look(stranger, token))["bill"]
    assert (bill["payable"], bill["reason"]) == (False, "cancelled")
    assert (await stranger.start(opened["patient_id"], bill["bill_id"])).code == "bill_not_payable"
    assert house.pay.books()["orders"] == []


async def test_another_institutions_paper_is_none(house: House, stranger: Phone) -> None:
    """The same person in another hospital's mini program."""
    other_id, app_id = await another_hospital(house)
    token = await a_paper(house)
    body = {"institution": OTHER, "app_id": app_id, "code": house.chat.new_login_code(stranger.user, app_id)}
    there = Phone(house=house, base_url=stranger.base_url, http=stranger.http, user=stranger.user, app_id=app_id)
    there.token = (await there.done("POST", "/api/v1/sessions", body))["token"]
    await agree(there)
    for answer in (
        await answered(there, "GET", f"{PAPERS}/{token}"),
        await guess(there, token, RIGHT),
        await guess(there, token, WRONG),
        await scan(there, token=token),
        await scan(there, code=next(iter(house.his.bills))),  # papers are off there
    ):
        assert (answer.status, answer.code) == (404, "not_found")
    assert await Guess.all().count() == 0
    assert await Patient.filter(institution_id=other_id).count() == 0


@pytest.mark.parametrize(
    "body",
    [{}, {"token": "A" * 22, "code": "CF1"}, {"token": ""}, {"token": None}, {"code": "x" * 129}, {"page": "x"}],
)
async def test_one_of_three_is_sent(stranger: Phone, body: dict[str, Any]) -> None:
    assert (await stranger.post(PAPERS, body)).code == "invalid_request"


async def test_only_whole_addresses_of_ours_are_papers(house: House, stranger: Phone) -> None:
    token = await a_paper(house)
    for url in (f"{PUBLIC_URL}/p/{token}?from=wx", f"{PUBLIC_URL}/p/{token}/", f"{PUBLIC_URL}/p/{token}#x"):
        assert (await scan(stranger, url=url)).body["token"] == token
    for url in (
        f"http://evil.test/p/{token}",
        f"http://house.test.evil.test/p/{token}",
        f"http://house.test@evil.test/p/{token}",
        f"{PUBLIC_URL}/q/{token}",
        f"/p/{token}",
        token,
        quote(f"{PUBLIC_URL}/p/{token}", safe=""),
    ):
        assert (await scan(stranger, url=url)).code == "not_found"
    assert token_of("https://a", "https://a/p/x?y") == "x"


async def test_an_address_that_the_his_has_computed(house: House, stranger: Phone) -> None:
    await change_settings(house, paper_code="his_makes")
    params = {"key_id": house.his.key_id, "secret": house.his.keys[house.his.key_id], "paper_key": PAPER_KEY}
    sealed = house.services.outside.keyring.encrypt_json(params, place="hospital_site.params")
    await HospitalSiteRow.filter(id=house.site_id).update(params_enc=sealed)
    bill = house.bill()
    token = paper_token(PAPER_KEY.encode(), "renhe", "", bill)
    assert len(token) < 128
    scanned = (await scan(stranger, url=f"{PUBLIC_URL}/p/{token}")).body
    assert (scanned["token"], scanned["stage"]) == (token, "consent")
    await agree(stranger)
    assert (await guess(stranger, token, RIGHT)).body["bill"]["bill_id"] == bill
    forged = paper_token(b"x" * 32, "renhe", "", bill)
    assert (await scan(stranger, token=forged)).code == "not_found"


# ---------------------------------------------------------------- barcodes


async def test_a_barcode_always_asks_for_the_factor(house: House, stranger: Phone) -> None:
    await change_settings(house, paper_code="barcode", paper_factor="none")
    bill = house.bill()
    await agree(stranger)
    view = (await scan(stranger, code=f" {bill} ")).body
    assert (view["stage"], view["bill"]) == ("factor", None)
    assert bill not in view["token"]
    opened = (await guess(stranger, view["token"], RIGHT)).body
    assert opened["bill"]["bill_id"] == bill


async def test_barcodes_cannot_be_tried_out(house: House, stranger: Phone) -> None:
    await change_settings(house, paper_code="barcode")
    bill = house.bill()
    for number in range(GUESSES_OF_PAYER.most):
        answer = await scan(stranger, code=f"CF{number}")
        assert (answer.code, answer.error["reason"]) == ("not_found", "paper")
    locked = await in_both_languages(stranger, lambda: scan(stranger, code=bill))
    assert (locked["code"], locked["minutes"]) == ("factor_locked", 24 * 60)
    house.clock.advance(timedelta(days=1))
    await stranger.sign_in()
    assert (await scan(stranger, code=bill)).status == 200


@pytest.mark.parametrize("code", ["a b", "中文", "CF/1", "x" * 65, "CF1;DROP"])
async def test_what_cannot_be_a_barcode(house: House, stranger: Phone, code: str) -> None:
    await change_settings(house, paper_code="barcode")
    assert (await stranger.post(PAPERS, {"code": code})).code == "invalid_request"


async def test_where_papers_are_off(house: House, stranger: Phone) -> None:
    token = await a_paper(house)
    await change_settings(house)
    assert (await scan(stranger, token=token)).code == "not_found"
    assert (await scan(stranger, code=next(iter(house.his.bills)))).code == "not_found"


# ---------------------------------------------------------------- a slow HIS


async def test_a_slow_his_is_asked_once_and_a_guess_is_counted_once(house: House, stranger: Phone) -> None:
    token = await a_paper(house)
    await agree(stranger)
    his = held(house.services.outside.hospitals, "rest")
    his.hold("get_bill")
    began = time.monotonic()
    path = f"{PAPERS}/{token}/factor"
    asking = await stranger.post(path, {"factor": WRONG})
    assert asking.status == 202
    assert time.monotonic() - began < PAGE_WAIT_SECONDS + 2
    again = await stranger.post(path, {"factor": WRONG})
    assert (again.status, again.body["ticket"]) == (202, asking.body["ticket"])
    assert his.calls["get_bill"] == 1
    his.let_go("get_bill")
    for _ in range(2):  # the answer was lost on the way
        told = await answered(stranger, "POST", f"{path}?ticket={asking.body['ticket']}", {"factor": WRONG})
        assert (told.code, told.error["left"]) == ("factor_wrong", 4)
    assert (await Guess.get(subject__not="", actor__not="")).count == 1
    his.hold("get_patient")
    looking = await stranger.get(f"{PAPERS}/{token}")
    assert looking.status == 202
    his.let_go("get_patient")
    told = await answered(stranger, "GET", f"{PAPERS}/{token}?ticket={looking.body['ticket']}")
    assert told.body["stage"] == "factor"


async def test_a_barcode_that_a_slow_his_looks_for_is_counted_once(house: House, stranger: Phone) -> None:
    await change_settings(house, paper_code="barcode")
    bill = house.bill()
    his = held(house.services.outside.hospitals, "rest")
    his.hold("get_bill")
    asking = await stranger.post(PAPERS, {"code": bill})
    assert asking.status == 202
    his.let_go("get_bill")
    found = await answered(stranger, "POST", f"{PAPERS}?ticket={asking.body['ticket']}", {"code": bill})
    assert (found.status, found.body["stage"]) == (200, "consent")
    assert (await Guess.get(subject="numbers")).count == 1


async def test_a_silent_his_opens_nothing(house: House, stranger: Phone) -> None:
    token = await a_paper(house)
    await agree(stranger)
    house.faults.rate("hospital.request_lost", 1.0)
    for call in (lambda: scan(stranger, token=token), lambda: guess(stranger, token, RIGHT)):
        assert (await in_both_languages(stranger, call))["code"] == "hospital_unavailable"
    assert await Guess.all().count() == 0


# ---------------------------------------------------------------- consents


async def test_consents_are_seen_and_withdrawn_in_one_place(house: House, phone: Phone) -> None:
    await change_settings(house, paper_code="his_asks")
    assert await phone.done("GET", CONSENTS) == {"version": "1", "consents": []}
    patient = await phone.bind()
    assert {each["version"] for each in (await phone.done("GET", CONSENTS))["consents"]} == {"2026-05"}
    given = await agree(phone)
    assert await agree(phone) == given
    assert given["consents"][-1] == {
        "kind": "personal",
        "version": "1",
        "way": "miniprogram",
        "given_at": "2026-05-06T10:00:00+08:00",
    }
    token = await a_paper(house, LABOURER)
    opened = (await guess(phone, token, "0005")).body["patient_id"]
    assert (await phone.ask("DELETE", f"{CONSENTS}/personal")).status == 204
    assert (await phone.done("GET", CONSENTS))["consents"] == []
    assert await phone.done("GET", "/api/v1/patients") == {"patients": []}
    assert (await phone.get(f"/api/v1/patients/{patient}/bills")).code == "patient_not_bound"
    assert (await look(phone, token))["stage"] == "consent"
    bill = next(iter(house.his.bills))
    assert (await phone.start(opened, bill)).code == "patient_not_bound"
    assert await Binding.filter(removed_at=None).count() == 0
    assert (await phone.ask("DELETE", f"{CONSENTS}/personal")).status == 204


async def test_notices_by_sms_go_to_the_phone_that_the_app_has_proven(house: House, phone: Phone) -> None:
    body = {"kind": "sms", "version": "1"}
    assert (await phone.post(CONSENTS, body)).error["field"] == "phone_code"
    assert (await phone.post(CONSENTS, {**body, "phone_code": "made-up"})).error["reason"] == "phone_code"
    assert (await phone.done("GET", CONSENTS))["consents"] == []
    code = house.chat.new_phone_code(phone.user, phone.app_id)
    given = await phone.done("POST", CONSENTS, {**body, "phone_code": code})
    assert [each["kind"] for each in given["consents"]] == ["sms"]
    (payer,) = await Payer.filter(institution_id=house.institution_id)
    assert await house.services.consents.phone(payer) == "19900000001"
    assert (await phone.ask("DELETE", f"{CONSENTS}/sms")).status == 204
    assert await house.services.consents.phone(payer) == ""


@pytest.mark.parametrize("body", [{}, {"kind": "all", "version": "1"}, {"kind": "personal"}])
async def test_a_consent_names_kind_and_version(phone: Phone, body: dict[str, Any]) -> None:
    assert (await phone.post(CONSENTS, body)).code == "invalid_request"


async def test_a_kind_that_is_none(phone: Phone) -> None:
    assert (await phone.ask("DELETE", f"{CONSENTS}/all")).code == "not_found"


async def test_papers_and_consents_are_for_who_has_signed_in(phone: Phone) -> None:
    phone.token = ""
    for method, path in (
        ("POST", PAPERS),
        ("GET", f"{PAPERS}/x"),
        ("POST", f"{PAPERS}/x/factor"),
        ("GET", CONSENTS),
        ("POST", CONSENTS),
        ("DELETE", f"{CONSENTS}/personal"),
    ):
        assert (await phone.ask(method, path)).code == "not_signed_in"
