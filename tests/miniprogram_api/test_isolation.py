"""A payer sees his own, and only at his own institution."""

from __future__ import annotations

from uuid import UUID, uuid4

from core.models import Payment
from miniprogram_api.auth import Tokens
from tests.miniprogram_api.conftest import SESSION_KEY, NewPhone
from tests.miniprogram_api.phone import Phone, in_both_languages
from tests.support.house import CHAT_URL, HIS_URL, LABOURER, House

OTHER = "tongde"


async def another_hospital(house: House) -> tuple[UUID, str]:
    """A second institution on the same HIS and with a mini program of its own: id and app id."""
    institution_id = await house.setup.institution(code=OTHER, name_zh="同德医院")
    await house.setup.hospital_site(
        institution_id,
        base_url=HIS_URL,
        params={"key_id": house.his.key_id, "secret": house.his.keys[house.his.key_id]},
    )
    app = house.chat.add_mini_program("同德医院缴费")
    await house.setup.chat_account(
        institution_id,
        platform="wechat_miniprogram",
        app_id=app.app_id,
        params={"secret": app.secret, "base_url": CHAT_URL},
    )
    return institution_id, app.app_id


async def test_another_familys_bill_looks_like_none(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    strangers = house.bill(LABOURER, total_fen=3210)
    shown = await in_both_languages(phone, lambda: phone.get(f"/api/v1/patients/{patient}/bills/-/{strangers}"))
    unknown = await phone.get(f"/api/v1/patients/{patient}/bills/-/CF0")
    assert (shown["code"], shown["message"]) == (unknown.code, unknown.error["message"])
    assert shown["code"] == "not_found"
    paid = await in_both_languages(phone, lambda: phone.start(patient, strangers))
    assert (paid["code"], paid["message"]) == ("not_found", shown["message"])
    assert set(paid) == {"code", "message", "request_id"}
    assert (await phone.bills(patient))["bills"] == []
    assert await Payment.all().count() == 0
    assert house.pay.books()["orders"] == []
    assert house.his.books()["bills"][strangers]["locked_by"] == ""


async def test_another_familys_patient_and_payment(house: House, phone: Phone, new_phone: NewPhone) -> None:
    stranger = await new_phone("李大山", "19900000005")
    theirs = await stranger.bind(LABOURER)
    bill = house.bill(LABOURER, total_fen=3210)
    order_no = await stranger.pays(theirs, bill)
    for part in ("bills", f"bills/-/{bill}", "paid", "counts", "methods", "payers"):
        for patient in (theirs, uuid4()):
            answer = await phone.get(f"/api/v1/patients/{patient}/{part}")
            assert (answer.status, answer.code) == (403, "patient_not_bound")
    (binding,) = (await stranger.done("GET", f"/api/v1/patients/{theirs}/payers"))["payers"]
    await phone.bind()
    for patient in (theirs, uuid4()):
        removal = f"/api/v1/patients/{patient}/payers/{binding['binding_id']}"
        assert (await phone.ask("DELETE", removal)).code == "patient_not_bound"
    own = (await phone.done("GET", "/api/v1/patients"))["patients"][0]["patient_id"]
    removal = f"/api/v1/patients/{own}/payers/{binding['binding_id']}"  # a patient of hers, the binding of another
    assert (await phone.ask("DELETE", removal)).code == "not_found"
    assert len((await stranger.done("GET", f"/api/v1/patients/{theirs}/payers"))["payers"]) == 1
    assert (await phone.start(theirs, bill)).code == "patient_not_bound"
    assert (await phone.get(f"/api/v1/payments/{order_no}")).code == "not_found"
    assert (await phone.post(f"/api/v1/payments/{order_no}/cancel")).code == "not_found"
    assert (await phone.ask("DELETE", f"/api/v1/patients/{theirs}")).code == "not_found"
    await house.settle()
    assert (await stranger.payment(order_no))["status"] == "paid"


async def test_nobody_reaches_into_another_institution(house: House, phone: Phone, new_phone: NewPhone) -> None:
    """The same person, HIS numbers and bill at two institutions: each session opens its own only."""
    other_id, app_id = await another_hospital(house)
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    order_no = await phone.pays(patient, bill)
    await phone.payment(order_no)

    body = {
        "institution": OTHER,
        "app_id": app_id,
        "code": house.chat.new_login_code(phone.user, app_id),
    }
    there = await new_phone("王秀兰", "19900000009", signed_in=False)
    there.user, there.app_id = phone.user, app_id
    there.token = (await there.done("POST", "/api/v1/sessions", body))["token"]
    assert await there.done("GET", "/api/v1/patients") == {"patients": []}
    for part in ("bills", f"bills/-/{bill}", "paid", "counts", "methods", "payers"):
        assert (await there.get(f"/api/v1/patients/{patient}/{part}")).code == "patient_not_bound"
    assert (await there.get(f"/api/v1/payments/{order_no}")).code == "not_found"
    assert (await there.post(f"/api/v1/payments/{order_no}/cancel")).code == "not_found"

    there_patient = await there.bind()
    assert there_patient != patient
    (binding,) = (await phone.done("GET", f"/api/v1/patients/{patient}/payers"))["payers"]
    for of, code in ((patient, "patient_not_bound"), (there_patient, "not_found")):
        answer = await there.ask("DELETE", f"/api/v1/patients/{of}/payers/{binding['binding_id']}")
        assert answer.code == code
    assert len((await there.done("GET", f"/api/v1/patients/{there_patient}/payers"))["payers"]) == 1
    assert (await phone.get(f"/api/v1/patients/{there_patient}/bills")).code == "patient_not_bound"
    paid = await there.paid(there_patient)
    assert [entry["source"] for entry in paid["paid"]] == []
    listed = await there.bills(there_patient)
    assert listed["bills"][0]["status"] == "to_pay"  # what the first institution has taken is not seen here
    assert (await there.start(there_patient, bill)).code == "method_not_available"
    assert await Payment.filter(institution_id=other_id).count() == 0

    # A session of one institution cannot be presented as one of the other, and an app belongs to one.
    assert (await there.post("/api/v1/sessions", {**body, "institution": "renhe"})).code == "not_found"
    payer_id = Tokens.of_secret(house.clock, SESSION_KEY).read(phone.token).payer_id
    forged, _ = Tokens.of_secret(house.clock, SESSION_KEY).issue(payer_id=payer_id, institution_id=other_id)
    assert (await phone.get("/api/v1/patients", headers={"authorization": f"Bearer {forged}"})).code == "not_signed_in"
