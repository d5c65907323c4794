"""How the adapter reads what real HIS write: with gaps, in odd words, and never by guessing money."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import Fen
from core.ports import BillKind
from hospital.rest import mapping
from hospital.rest.mapping import Unreadable
from simulators.clock import ManualClock
from tests.support.hospital import MORNING, a_simulator, a_site

NO_VALUE: tuple[Any, ...] = (None, "", "null", [], {}, -1)
SITE = a_site(a_simulator(ManualClock(MORNING)), "http://his.test")
ROW = {"bill_id": "B1", "patient_id": "P1", "to_pay_fen": 100}


def a_bill(**changes: Any) -> Any:
    return mapping.read_bill({**ROW, **changes}, branch="main", state_unsaid="unpaid")


@pytest.mark.parametrize("nothing", NO_VALUE)
def test_no_value_in_every_optional_field_is_the_default(nothing: object) -> None:
    names = ("visit_no", "kind", "kind_text", "title", "department", "doctor", "issued_at", "insured",
             "payable_online", "not_payable_reason", "state", "merge_group", "treat_first", "valid_until",
             "items", "total_fen")  # fmt: skip
    assert a_bill(**dict.fromkeys(names, nothing)) == a_bill()
    assert a_bill().payable_online
    assert a_bill().kind is BillKind.OTHER


@pytest.mark.parametrize("wrong", ["100", "1.00", 1.0, 99.5, -100, True, [100], 10**18, {"fen": 100}])
def test_an_amount_that_is_not_whole_fen_is_never_guessed(wrong: object) -> None:
    with pytest.raises(Unreadable):
        a_bill(to_pay_fen=wrong)


@pytest.mark.parametrize("nothing", NO_VALUE)
def test_a_bill_without_any_amount_is_not_a_bill_over_nothing(nothing: object) -> None:
    with pytest.raises(Unreadable):
        a_bill(to_pay_fen=nothing)


def test_one_of_two_amounts_is_enough() -> None:
    assert (a_bill().total_fen, a_bill().to_pay_fen) == (100, 100)
    only_total = mapping.read_bill(
        {"bill_id": "B", "patient_id": "P", "total_fen": 7}, branch="", state_unsaid="unpaid"
    )
    assert (only_total.total_fen, only_total.to_pay_fen) == (7, 7)


@pytest.mark.parametrize("body", [{}, {"bills": None}, {"bills": ""}, {"bills": "null"}, {"bills": {}},
                                  {"bills": -1}, {"bills": [1]}, {"bills": [[]]}])  # fmt: skip
def test_only_an_explicit_empty_list_means_no_bills(body: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        mapping.read_unpaid_bills(body, branch="", his_patient_id="P1")
    assert mapping.read_unpaid_bills({"bills": []}, branch="", his_patient_id="P1") == ()


def test_another_patients_bill_in_the_list_spoils_the_answer() -> None:
    with pytest.raises(Unreadable):
        mapping.read_unpaid_bills({"bills": [{**ROW, "patient_id": "P2"}]}, branch="", his_patient_id="P1")


def test_a_list_need_not_repeat_the_patient_and_may_repeat_a_bill() -> None:
    row = {"bill_id": "B1", "to_pay_fen": 100}
    bills = mapping.read_unpaid_bills({"bills": [row, row]}, branch="", his_patient_id="P1")
    assert [bill.his_patient_id for bill in bills] == ["P1"]
    with pytest.raises(Unreadable):
        mapping.read_unpaid_bills({"bills": [row, {**row, "to_pay_fen": 1}]}, branch="", his_patient_id="P1")


def test_settled_bills_in_the_unpaid_list_are_left_out_and_odd_states_are_not() -> None:
    rows = [{"bill_id": state, "to_pay_fen": 1, "state": state} for state in ("paid", "cancelled", "expired", "锁")]
    bills = mapping.read_unpaid_bills({"bills": rows}, branch="", his_patient_id="P1")
    assert [(bill.his_bill_id, bill.state) for bill in bills] == [("expired", "expired"), ("锁", "unknown")]


PERSON = {"patient_id": "P1", "name": "王秀兰", "phones": ["19900000001"]}


def test_the_person_asked_for_is_the_person_who_is_read() -> None:
    assert mapping.read_one_patient({"patient": PERSON}, his_patient_id="P1").phones == ("19900000001",)
    unsaid = {name: value for name, value in PERSON.items() if name != "patient_id"}
    assert mapping.read_one_patient({"patient": unsaid}, his_patient_id="P1").his_patient_id == "P1"
    with pytest.raises(Unreadable):
        mapping.read_one_patient({"patient": PERSON}, his_patient_id="P2")


@pytest.mark.parametrize("body", [{}, {"patient": None}, {"patient": []}, {"patient": [PERSON]}, {"patient": "P1"},
                                  {"patients": [PERSON]}])  # fmt: skip
def test_a_person_that_is_not_there_is_not_a_person_without_a_phone(body: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        mapping.read_one_patient(body, his_patient_id="P1")


@pytest.mark.parametrize("nothing", NO_VALUE)
def test_a_person_of_whom_little_is_known_is_still_a_person(nothing: object) -> None:
    names = ("name", "phones", "identifiers", "birth_date")
    person = mapping.read_one_patient({"patient": dict.fromkeys(names, nothing)}, his_patient_id="P1")
    assert (person.name, person.phones, person.identifiers, person.birth_date) == ("", (), (), "")


def test_documents_of_a_kind_that_we_do_not_know_are_left_out() -> None:
    documents = [{"type": "id_card", "value": "1"}, {"type": "军官证", "value": "2"}, {"type": "passport", "value": ""}]
    person = mapping.read_one_patient({"patient": {**PERSON, "identifiers": documents}}, his_patient_id="P1")
    assert [(each.type.value, each.value) for each in person.identifiers] == [("id_card", "1")]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-06T10:00:00+08:00", datetime(2026, 5, 6, 2, 0, tzinfo=UTC)),
        ("2026-05-06T02:00:00Z", datetime(2026, 5, 6, 2, 0, tzinfo=UTC)),
        ("2026-05-06 02:00:00.25z", datetime(2026, 5, 6, 2, 0, 0, 250000, tzinfo=UTC)),
        ("2026-05-06T02:00:00.1234567Z", datetime(2026, 5, 6, 2, 0, 0, 123456, tzinfo=UTC)),
        ("2026-05-06T10:00:00", None),
        ("2026-05-06", None),
        ("20260506100000", None),
        ("2026-13-06T10:00:00+08:00", None),
        ("9999-12-31T23:59:59-08:00", None),
        (1777000000, None),
    ],
)
def test_a_time_needs_its_zone(text: object, moment: datetime | None) -> None:
    assert mapping.moment({"at": text}, "at") == moment


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_time_that_we_write_is_read_as_the_same(value: datetime) -> None:
    assert mapping.moment({"at": mapping.time_text(value)}, "at") == value


@pytest.mark.parametrize("booked", [None, "", "true", 1, "Y", [], "no"])
def test_booked_is_plain_true_or_false(booked: object) -> None:
    with pytest.raises(Unreadable):
        mapping.read_booking({"booked": booked}, raw=b"", confirm_no="C1")


def test_a_booking_of_another_number_bill_or_amount_is_not_ours() -> None:
    amounts = {"B1": Fen(100)}
    for answer in (
        {"booked": True, "confirm_no": "C2"},
        {"booked": True, "receipts": [{"bill_id": "B2", "receipt_no": "S1"}]},
        {"booked": True, "receipts": [{"bill_id": "B1", "receipt_no": "S1", "amount_fen": 99}]},
    ):
        with pytest.raises(Unreadable):
            mapping.read_booking(answer, raw=b"", confirm_no="C1", amounts=amounts)
    booking = mapping.read_booking({"booked": True}, raw=b"", confirm_no="C1", amounts=amounts)
    assert (booking.booked, booking.receipts) == (True, ())


def test_only_web_addresses_are_handed_to_a_patient() -> None:
    assert mapping.link({"url": "javascript:alert(1)"}, "url") == ""
    assert mapping.link({"url": "HTTPS://his/x"}, "url") == "HTTPS://his/x"


@pytest.mark.parametrize("bills", [[], [{"bill_id": "B1", "amount_fen": 1}], [{"bill_id": "B1", "amount_fen": 1}] * 2])
def test_a_lock_over_other_bills_is_not_the_lock_we_asked_for(bills: list[dict[str, Any]]) -> None:
    with pytest.raises(Unreadable):
        mapping.read_grant({"lock_id": "L1", "bills": bills}, asked=frozenset({"B1", "B2"}), now=MORNING, site=SITE)


def test_a_lock_without_an_end_lives_as_long_as_the_site_declares() -> None:
    grant = mapping.read_grant(
        {"lock_id": "L1", "bills": [{"bill_id": "B1", "amount_fen": 1}], "expires_at": "2026-05-06 10:30:00"},
        asked=frozenset({"B1"}),
        now=MORNING,
        site=SITE,
    )
    assert (grant.expires_at - MORNING).total_seconds() == SITE.capabilities.lock_seconds


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'{"a":NaN}', b"[" * 100_000, b"\xff"])
def test_what_is_no_json_object_is_nothing(body: bytes) -> None:
    assert mapping.read_object(body) is None
    assert mapping.read_object(b'\xef\xbb\xbf{"a":1}') == {"a": 1}
