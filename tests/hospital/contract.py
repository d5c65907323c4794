"""What every Hospital adapter promises, shown against a HIS with books of its own.

A new adapter inherits the class and gives a `connected` fixture: its simulator, its adapter, a site.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from core.errors import CounterpartyError, NotReached, OutcomeUnknown, Refused
from core.money import Fen
from core.ports import (
    RELOCK_CODES,
    BillKind,
    BookedBill,
    ConfirmOrder,
    HospitalEvent,
    HospitalEventKind,
    Identifier,
    IdentifierType,
    LockWord,
    MoneyBy,
    ReverseLine,
    ReverseOrder,
    Unverified,
)
from simulators.hospital_stock import READY_PEOPLE
from simulators.kit import Request, Response, deliver_one
from tests.support.hospital import ELDER, EVENTS_URL, INFANT, LABOURER, MORNING, Connected

SILENT = (
    "not_reached", "request_lost", "answer_lost", "error_500", "answer_garbled", "answer_unsigned",
    "answer_forged", "answer_of_another_request", "outcome_unknown_word", "login_page",
)  # fmt: skip
DONE_BUT_SILENT = (
    "answer_lost", "booked_but_error_500", "answer_garbled", "answer_unsigned", "answer_forged",
    "answer_of_another_request", "outcome_unknown_word",
)  # fmt: skip
NOT_DONE = ("request_lost", "error_500", "login_page")


class HospitalContract:
    # ------------------------------------------------------------ patients

    @pytest.mark.parametrize("kind", list(IdentifierType))
    async def test_a_patient_is_found_by_each_kind_of_identifier(
        self, connected: Connected, kind: IdentifierType
    ) -> None:
        person, value = next(
            (person, value) for person in READY_PEOPLE for type_, value in person.identifiers if type_ == kind
        )
        found = await connected.hospital.find_patients(connected.site, Identifier(type=kind, value=value))
        assert person.patient_id in [patient.his_patient_id for patient in found]
        assert all(Identifier(type=kind, value=value) in patient.identifiers for patient in found)

    async def test_one_person_with_two_numbers_at_the_his_is_found_as_two_patients(self, connected: Connected) -> None:
        card = dict(READY_PEOPLE[0].identifiers)["id_card"]
        identifier = Identifier(type=IdentifierType.ID_CARD, value=card)
        found = await connected.hospital.find_patients(connected.site, identifier)
        assert [patient.his_patient_id for patient in found] == ["P10001", "P00417"]
        assert found[0].phones == ("19900000001", "19900000011")

    async def test_an_infant_is_found_with_the_guardians_phone(self, connected: Connected) -> None:
        certificate = Identifier(type=IdentifierType.BIRTH_CERTIFICATE, value="T990000003")
        [infant] = await connected.hospital.find_patients(connected.site, certificate)
        assert (infant.his_patient_id, infant.phones) == (INFANT, ("19900000002",))
        assert infant.birth_date == "2026-01-09"

    async def test_nobody_found_is_an_empty_tuple(self, connected: Connected) -> None:
        nobody = Identifier(type=IdentifierType.PASSPORT, value="NOBODY")
        assert await connected.hospital.find_patients(connected.site, nobody) == ()

    async def test_a_patient_is_known_by_id_with_every_phone_and_document(self, connected: Connected) -> None:
        person = next(person for person in READY_PEOPLE if person.patient_id == ELDER)
        patient = await connected.hospital.get_patient(connected.site, ELDER)
        assert patient is not None
        assert (patient.his_patient_id, patient.name, patient.birth_date) == (ELDER, person.name, person.birth_date)
        assert patient.phones == person.phones
        assert [(each.type.value, each.value) for each in patient.identifiers] == list(person.identifiers)

    async def test_an_unknown_patient_id_is_nobody(self, connected: Connected) -> None:
        assert await connected.hospital.get_patient(connected.site, "P-NOBODY") is None

    @pytest.mark.parametrize("fault", SILENT)
    async def test_no_answer_about_a_patient_is_never_nobody(self, connected: Connected, fault: str) -> None:
        connected.simulator.faults.script(f"hospital.{fault}")
        with pytest.raises((NotReached, OutcomeUnknown)):
            await connected.hospital.get_patient(connected.site, ELDER)
        assert await connected.hospital.get_patient(connected.site, ELDER) is not None

    async def test_somebody_elses_data_are_never_believed(
        self, connected: Connected, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The HIS looks up the wrong row, and signs it."""
        monkeypatch.setitem(
            connected.simulator._operations,
            "get_patient",
            lambda fields, now, fault: connected.simulator._get_patient({"patient_id": LABOURER}, now, fault),
        )
        with pytest.raises(OutcomeUnknown):
            await connected.hospital.get_patient(connected.site, ELDER)

    # ------------------------------------------------------------ bills

    async def test_a_bill_comes_as_the_his_has_it(self, connected: Connected) -> None:
        number = connected.simulator.issue_bill(LABOURER, kind="chinese", items=[("黄芪", 1234), ("当归", 66)])
        [bill] = await connected.hospital.list_bills(connected.site, LABOURER)
        assert (bill.his_bill_id, bill.his_patient_id, bill.branch) == (number, LABOURER, "main")
        assert (bill.kind, bill.kind_text, bill.title) == (BillKind.CHINESE, "中草药费", "中药处方")
        assert (bill.total_fen, bill.to_pay_fen, bill.state) == (1300, 1300, "unpaid")
        assert bill.issued_at == connected.clock.now()
        assert bill.valid_until == connected.clock.now().replace(hour=16)  # midnight in the hospital
        assert bill.visit_no.startswith("MZ20260506")

    async def test_one_bill_comes_with_its_items(self, connected: Connected) -> None:
        number = connected.simulator.issue_bill(LABOURER, items=[("黄芪", 1234), ("当归", 66)])
        bill = await connected.hospital.get_bill(connected.site, number)
        assert bill is not None
        assert [(item.name, item.amount_fen) for item in bill.items] == [("黄芪", 1234), ("当归", 66)]

    async def test_an_unknown_kind_is_other_and_keeps_the_hospitals_words(self, connected: Connected) -> None:
        connected.simulator.issue_bill(LABOURER, kind="nutrition")
        [bill] = await connected.hospital.list_bills(connected.site, LABOURER)
        assert (bill.kind, bill.kind_text, bill.payable_online) == (BillKind.OTHER, "膳食指导费", True)

    async def test_every_unpaid_bill_is_listed_payable_here_or_not(self, connected: Connected) -> None:
        issue = connected.simulator.issue_bill
        insured = issue(LABOURER, insured=True, payable_online=False, not_payable_reason="医保处方请到窗口")
        treated = issue(LABOURER, kind="treatment", treat_first=True)
        nothing = issue(LABOURER, total_fen=0)
        bills = {bill.his_bill_id: bill for bill in await connected.hospital.list_bills(connected.site, LABOURER)}
        assert bills.keys() == {insured, treated, nothing}
        assert bills[insured].insured
        assert not bills[insured].payable_online
        assert bills[insured].not_payable_reason == "医保处方请到窗口"
        assert bills[treated].treat_first
        assert bills[treated].valid_until is None
        assert bills[nothing].to_pay_fen == 0

    async def test_settled_bills_leave_the_list_and_can_still_be_seen(self, connected: Connected) -> None:
        paid, cancelled = connected.simulator.issue_bill(ELDER), connected.simulator.issue_bill(ELDER)
        connected.simulator.window_pay(paid)
        connected.simulator.cancel(cancelled)
        assert await connected.hospital.list_bills(connected.site, ELDER) == ()
        states = [await connected.hospital.get_bill(connected.site, number) for number in (paid, cancelled)]
        assert [bill.state for bill in states if bill] == ["paid", "cancelled"]

    @pytest.mark.parametrize("fault", SILENT)
    async def test_no_answer_is_never_an_empty_list(self, connected: Connected, fault: str) -> None:
        connected.simulator.issue_bill(LABOURER)
        connected.simulator.faults.script(f"hospital.{fault}")
        with pytest.raises((NotReached, OutcomeUnknown)):
            await connected.hospital.list_bills(connected.site, LABOURER)
        assert len(await connected.hospital.list_bills(connected.site, LABOURER)) == 1

    async def test_an_unknown_patient_is_refused_for_good(self, connected: Connected) -> None:
        with pytest.raises(Refused) as refused:
            await connected.hospital.list_bills(connected.site, "P-NOBODY")
        assert (refused.value.code, refused.value.final) == ("PATIENT_UNKNOWN", True)

    async def test_an_unknown_bill_is_none(self, connected: Connected) -> None:
        assert await connected.hospital.get_bill(connected.site, "CF-NONE") is None

    async def test_an_expired_bill_says_so_and_is_not_hidden(self, connected: Connected) -> None:
        connected.simulator.issue_bill(LABOURER)
        connected.clock.advance(timedelta(hours=14))
        [bill] = await connected.hospital.list_bills(connected.site, LABOURER)
        assert bill.state == "expired"

    async def test_new_bills_come_by_half_open_window(self, connected: Connected) -> None:
        start = connected.clock.now()
        first = connected.simulator.issue_bill(LABOURER)
        connected.clock.advance(timedelta(minutes=1))
        second = connected.simulator.issue_bill(ELDER)
        middle = connected.clock.now()
        connected.clock.advance(timedelta(minutes=1))
        earlier = await connected.hospital.list_new_bills(connected.site, start, middle)
        later = await connected.hospital.list_new_bills(connected.site, middle, connected.clock.now())
        assert [bill.his_bill_id for bill in earlier] == [first]
        assert [(bill.his_bill_id, bill.his_patient_id) for bill in later] == [(second, ELDER)]

    async def test_ways_of_saying_no_value_change_nothing(self, connected: Connected) -> None:
        connected.simulator.issue_bill(LABOURER)
        [plain] = await connected.hospital.list_bills(connected.site, LABOURER)
        connected.simulator.faults.script("hospital.no_value_words")
        [spoiled] = await connected.hospital.list_bills(connected.site, LABOURER)
        assert spoiled == replace(plain, department="", doctor="", not_payable_reason="")

    # ------------------------------------------------------------ locks

    async def test_a_lock_holds_exactly_these_bills_at_the_hospitals_amounts(self, connected: Connected) -> None:
        numbers = _two_bills_of_one_visit(connected)
        order = connected.a_lock_order(*numbers)
        grant = await connected.hospital.lock_bills(connected.site, order)
        assert grant.amounts_fen == dict(zip(numbers, (100, 250), strict=True))
        assert grant.expires_at == order.until
        assert connected.simulator.books()["bills"][numbers[0]]["locked_by"] == order.confirm_no

    async def test_locking_twice_under_one_number_is_one_lock(self, connected: Connected) -> None:
        order = connected.a_lock_order(connected.simulator.issue_bill(LABOURER))
        first = await connected.hospital.lock_bills(connected.site, order)
        assert await connected.hospital.lock_bills(connected.site, order) == first
        state = await connected.hospital.query_lock(connected.site, order.confirm_no)
        assert (state.word, state.grant) == (LockWord.HELD, first)

    async def test_a_bill_held_for_another_is_refused_but_not_for_good(self, connected: Connected) -> None:
        number, _, _ = await connected.a_locked_bill()
        with pytest.raises(Refused) as refused:
            await connected.hospital.lock_bills(connected.site, connected.a_lock_order(number))
        assert (refused.value.code, refused.value.final) == ("LOCK_HELD_BY_OTHER", False)

    async def test_a_lost_answer_to_a_lock_is_found_by_asking(self, connected: Connected) -> None:
        order = connected.a_lock_order(connected.simulator.issue_bill(LABOURER, total_fen=88))
        connected.simulator.faults.script("hospital.answer_lost")
        with pytest.raises(OutcomeUnknown):
            await connected.hospital.lock_bills(connected.site, order)
        state = await connected.hospital.query_lock(connected.site, order.confirm_no)
        assert state.grant is not None
        assert dict(state.grant.amounts_fen) == {order.his_bill_ids[0]: 88}

    async def test_releasing_is_safe_to_repeat_and_frees_the_bill(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        for _ in range(2):
            await connected.hospital.release_lock(connected.site, order.confirm_no)
        await connected.hospital.release_lock(connected.site, connected.a_confirm_no())
        state = await connected.hospital.query_lock(connected.site, order.confirm_no)
        assert state.word is LockWord.ABSENT
        await connected.hospital.lock_bills(connected.site, connected.a_lock_order(number))

    async def test_a_booked_lock_is_consumed_and_cannot_be_released(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        await connected.hospital.confirm_payment(connected.site, order)
        state = await connected.hospital.query_lock(connected.site, order.confirm_no)
        assert state.word is LockWord.CONSUMED
        with pytest.raises(Refused):
            await connected.hospital.release_lock(connected.site, order.confirm_no)
        assert connected.times_booked(number) == 1

    async def test_a_lapsed_lock_is_taken_again_under_the_same_number(self, connected: Connected) -> None:
        connected.simulator.faults.script("hospital.lock_lapses_early")
        number, _, order = await connected.a_locked_bill()
        connected.clock.advance(timedelta(seconds=30))
        with pytest.raises(Refused) as refused:
            await connected.hospital.confirm_payment(connected.site, order)
        assert refused.value.code in RELOCK_CODES
        assert not refused.value.final
        again = await connected.hospital.lock_bills(
            connected.site, connected.a_lock_order(number, confirm_no=order.confirm_no)
        )
        booking = await connected.hospital.confirm_payment(connected.site, replace(order, lock_id=again.lock_id))
        assert booking.booked
        assert connected.times_booked(number) == 1

    async def test_without_a_lock_nothing_is_booked_and_a_lock_may_follow(self, connected: Connected) -> None:
        number = connected.simulator.issue_bill(LABOURER, total_fen=500)
        order = connected.a_confirm_order(connected.a_confirm_no(), {number: Fen(500)})
        with pytest.raises(Refused) as refused:
            await connected.hospital.confirm_payment(connected.site, order)
        assert refused.value.code in RELOCK_CODES
        assert connected.times_booked(number) == 0

    async def test_locking_again_what_we_have_booked_is_not_a_final_refusal(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        await connected.hospital.confirm_payment(connected.site, order)
        with pytest.raises(Refused) as refused:
            await connected.hospital.lock_bills(
                connected.site, connected.a_lock_order(number, confirm_no=order.confirm_no)
            )
        assert (refused.value.code, refused.value.final) == ("LOCK_CONSUMED", False)

    # ------------------------------------------------------------ booking

    async def test_a_payment_is_booked_and_says_where_to_go(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        booking = await connected.hospital.confirm_payment(connected.site, order)
        assert booking.booked
        [receipt] = booking.receipts
        [booked] = connected.simulator.books()["bills"][number]["bookings"]
        assert (receipt.his_bill_id, receipt.receipt_no) == (number, booked["receipt_no"])
        assert receipt.guide_text == "请到门诊楼1楼西药房3号窗口取药"
        assert receipt.ebill_url.startswith("https://")
        assert (booked["confirm_no"], booked["amount_fen"]) == (order.confirm_no, 3210)

    async def test_booking_twice_under_one_number_is_one_booking(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        first = await connected.hospital.confirm_payment(connected.site, order)
        second = await connected.hospital.confirm_payment(connected.site, order)
        asked = await connected.hospital.query_payment(connected.site, order.confirm_no)
        assert first.receipts == second.receipts == asked.receipts
        assert connected.times_booked(number) == 1

    @pytest.mark.parametrize("fault", DONE_BUT_SILENT)
    async def test_booked_without_a_clear_answer_is_unknown_and_found_by_asking(
        self, connected: Connected, fault: str
    ) -> None:
        number, _, order = await connected.a_locked_bill()
        connected.simulator.faults.script(f"hospital.{fault}")
        with pytest.raises(OutcomeUnknown):
            await connected.hospital.confirm_payment(connected.site, order)
        assert (await connected.hospital.query_payment(connected.site, order.confirm_no)).booked
        assert connected.times_booked(number) == 1

    @pytest.mark.parametrize("fault", NOT_DONE)
    async def test_a_request_that_did_nothing_is_unknown_and_the_same_call_settles_it(
        self, connected: Connected, fault: str
    ) -> None:
        number, _, order = await connected.a_locked_bill()
        connected.simulator.faults.script(f"hospital.{fault}")
        with pytest.raises(OutcomeUnknown):
            await connected.hospital.confirm_payment(connected.site, order)
        assert not (await connected.hospital.query_payment(connected.site, order.confirm_no)).booked
        assert (await connected.hospital.confirm_payment(connected.site, order)).booked
        assert connected.times_booked(number) == 1

    async def test_what_never_left_is_not_reached(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        connected.line.unreachable_next()
        with pytest.raises(NotReached):
            await connected.hospital.confirm_payment(connected.site, order)
        assert connected.times_booked(number) == 0

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            ("refuses_confirm", "BILL_CANCELLED"),
            ("bill_paid_at_window_meanwhile", "BILL_PAID"),
            ("amount_changes_after_lock", "AMOUNT_MISMATCH"),
        ],
    )
    async def test_a_listed_refusal_is_final_and_nothing_of_ours_is_booked(
        self, connected: Connected, fault: str, code: str
    ) -> None:
        number, _, order = await connected.a_locked_bill()
        connected.simulator.faults.script(f"hospital.{fault}")
        with pytest.raises(Refused) as refused:
            await connected.hospital.confirm_payment(connected.site, order)
        assert (refused.value.code, refused.value.final) == (code, True)
        bookings = connected.simulator.books()["bills"][number]["bookings"]
        assert [booked["paid_by"] for booked in bookings] in ([], ["window"])

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ("paid", "BILL_PAID"),
            ("cancelled", "BILL_CANCELLED"),
            ("expired", "BILL_EXPIRED"),
            ("window only", "NOT_PAYABLE_ONLINE"),
            ("of somebody else", "BILL_UNKNOWN"),
        ],
    )
    async def test_a_bill_that_cannot_be_paid_is_refused_at_the_lock(
        self, connected: Connected, change: str, code: str
    ) -> None:
        patient = ELDER if change == "of somebody else" else LABOURER
        number = connected.simulator.issue_bill(patient, payable_online=change != "window only")
        if change == "paid":
            connected.simulator.window_pay(number)
        elif change == "cancelled":
            connected.simulator.cancel(number)
        elif change == "expired":
            connected.clock.advance(timedelta(hours=14))
        with pytest.raises(Refused) as refused:
            await connected.hospital.lock_bills(connected.site, connected.a_lock_order(number))
        assert (refused.value.code, refused.value.final) == (code, True)

    async def test_a_code_outside_the_list_proves_nothing(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        connected.simulator.faults.script("hospital.booked_but_unlisted_code")
        with pytest.raises(Refused) as refused:
            await connected.hospital.confirm_payment(connected.site, order)
        assert (refused.value.code, refused.value.final) == ("-99", False)
        assert (await connected.hospital.query_payment(connected.site, order.confirm_no)).booked
        assert connected.times_booked(number) == 1

    async def test_paid_by_ourselves_is_a_booking_not_a_refusal(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        first = await connected.hospital.confirm_payment(connected.site, order)
        connected.simulator.faults.script("hospital.repeat_says_paid")
        assert (await connected.hospital.confirm_payment(connected.site, order)).receipts == first.receipts
        assert connected.times_booked(number) == 1

    @pytest.mark.parametrize("fault", SILENT)
    async def test_already_paid_without_a_word_by_whom_is_unknown(self, connected: Connected, fault: str) -> None:
        _, _, order = await connected.a_locked_bill()
        await connected.hospital.confirm_payment(connected.site, order)
        connected.simulator.faults.script("hospital.repeat_says_paid")
        connected.line.after_next(lambda: connected.simulator.faults.script(f"hospital.{fault}"))
        with pytest.raises(OutcomeUnknown):
            await connected.hospital.confirm_payment(connected.site, order)

    async def test_a_slow_booking_is_not_yet_booked_then_booked_once(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        connected.simulator.faults.script("hospital.books_slowly")
        assert not (await connected.hospital.confirm_payment(connected.site, order)).booked
        assert not (await connected.hospital.query_payment(connected.site, order.confirm_no)).booked
        connected.clock.advance(timedelta(seconds=connected.site.capabilities.processing_limit_seconds))
        booking = await connected.hospital.query_payment(connected.site, order.confirm_no)
        assert booking.booked
        assert booking.receipts[0].receipt_no
        assert connected.times_booked(number) == 1

    async def test_a_hospital_that_does_not_know_is_unknown_until_its_staff_decide(self, connected: Connected) -> None:
        number, _, order = await connected.a_locked_bill()
        connected.simulator.faults.script("hospital.never_answers_booking")
        with pytest.raises(OutcomeUnknown):
            await connected.hospital.confirm_payment(connected.site, order)
        with pytest.raises(OutcomeUnknown):
            await connected.hospital.query_payment(connected.site, order.confirm_no)
        connected.simulator.resolve(order.confirm_no, book=True)
        assert (await connected.hospital.query_payment(connected.site, order.confirm_no)).booked
        assert connected.times_booked(number) == 1

    async def test_merged_bills_are_booked_together_or_not_at_all(self, connected: Connected) -> None:
        numbers = _two_bills_of_one_visit(connected)
        lock = connected.a_lock_order(*numbers)
        grant = await connected.hospital.lock_bills(connected.site, lock)
        order = connected.a_confirm_order(lock.confirm_no, dict(grant.amounts_fen), lock_id=grant.lock_id)
        connected.simulator.cancel(numbers[1], force=True)
        with pytest.raises(Refused):
            await connected.hospital.confirm_payment(connected.site, order)
        assert [connected.times_booked(number) for number in numbers] == [0, 0]
        other = connected.a_lock_order(numbers[0], confirm_no=lock.confirm_no)
        alone = await connected.hospital.lock_bills(connected.site, other)
        order = connected.a_confirm_order(lock.confirm_no, dict(alone.amounts_fen), lock_id=alone.lock_id)
        assert (await connected.hospital.confirm_payment(connected.site, order)).booked

    async def test_bills_that_do_not_belong_together_are_not_merged(self, connected: Connected) -> None:
        numbers = [connected.simulator.issue_bill(LABOURER, merge_group="") for _ in range(2)]
        with pytest.raises(Refused) as refused:
            await connected.hospital.lock_bills(connected.site, connected.a_lock_order(*numbers))
        assert (refused.value.code, refused.value.final) == ("MERGE_NOT_ALLOWED", True)

    async def test_a_bill_over_nothing_is_booked_over_nothing(self, connected: Connected) -> None:
        number, grant, order = await connected.a_locked_bill(connected.simulator.issue_bill(LABOURER, total_fen=0))
        assert dict(grant.amounts_fen) == {number: 0}
        assert (await connected.hospital.confirm_payment(connected.site, order)).booked

    async def test_the_wrong_amount_is_refused_for_good(self, connected: Connected) -> None:
        number, grant, order = await connected.a_locked_bill()
        wrong = connected.a_confirm_order(order.confirm_no, {number: Fen(3209)}, lock_id=grant.lock_id)
        with pytest.raises(Refused) as refused:
            await connected.hospital.confirm_payment(connected.site, wrong)
        assert (refused.value.code, refused.value.final) == ("AMOUNT_MISMATCH", True)
        assert connected.times_booked(number) == 0

    async def test_a_number_never_sent_is_not_booked(self, connected: Connected) -> None:
        assert not (await connected.hospital.query_payment(connected.site, connected.a_confirm_no())).booked

    # ------------------------------------------------------------ taking back

    async def test_a_check_says_what_may_go_back_and_why_not(self, connected: Connected) -> None:
        number, order = await _a_booked_bill(connected)
        connected.simulator.refunds.dispense(number, ["2"])
        booked = [BookedBill(confirm_no=order.confirm_no, his_bill_id=number)]
        [bill] = await connected.hospital.refund_check(connected.site, LABOURER, booked)
        assert (bill.his_bill_id, bill.allowed_fen, bill.reason) == (number, 1234, "药品已发出，不能退费")
        assert [(item.item_id, item.amount_fen, item.refundable, item.reason) for item in bill.items] == [
            ("1", 1234, True, ""),
            ("2", 66, False, "药品已发出，不能退费"),
        ]

    async def test_a_bill_that_is_not_booked_may_not_go_back(self, connected: Connected) -> None:
        number = connected.simulator.issue_bill(LABOURER, total_fen=100)
        booked = [BookedBill(confirm_no=connected.a_confirm_no(), his_bill_id=number)]
        [bill] = await connected.hospital.refund_check(connected.site, LABOURER, booked)
        assert (bill.allowed_fen, bill.items) == (0, ())
        assert bill.reason

    async def test_a_booking_is_taken_back_once_however_often_it_is_asked_for(self, connected: Connected) -> None:
        number, order = await _a_booked_bill(connected)
        reverse = _a_reversal(connected, order)
        first = await connected.hospital.confirm_refund(connected.site, reverse)
        again = await connected.hospital.confirm_refund(connected.site, reverse)
        asked = await connected.hospital.query_refund(connected.site, reverse.refund_no)
        assert first.reversed
        assert dict(first.amounts_fen) == {number: 1300}
        assert first.red_receipt_no
        assert first.red_receipt_no == again.red_receipt_no == asked.red_receipt_no
        bill = connected.simulator.books()["bills"][number]
        assert (bill["state"], [red["amount_fen"] for red in bill["red_receipts"]]) == ("cancelled", [1300])
        assert await connected.hospital.list_paid(
            connected.site, LABOURER, MORNING, connected.clock.now() + timedelta(seconds=1)
        ) == ()  # fmt: skip

    async def test_one_item_goes_back_and_the_bill_stays_paid(self, connected: Connected) -> None:
        number, order = await _a_booked_bill(connected)
        reverse = _a_reversal(connected, order, amount_fen=66, item_ids=("2",))
        assert (await connected.hospital.confirm_refund(connected.site, reverse)).reversed
        assert connected.simulator.books()["bills"][number]["state"] == "paid"
        with pytest.raises(Refused) as refused:
            await connected.hospital.confirm_refund(connected.site, _a_reversal(connected, order))
        assert (refused.value.code, refused.value.final) == ("REFUND_ABOVE_REST", True)

    async def test_a_number_never_sent_is_not_reversed(self, connected: Connected) -> None:
        assert not (await connected.hospital.query_refund(connected.site, "R" + "0" * 25)).reversed

    async def test_what_was_handed_out_is_refused_for_good(self, connected: Connected) -> None:
        number, order = await _a_booked_bill(connected)
        connected.simulator.dispense(number)
        with pytest.raises(Refused) as refused:
            await connected.hospital.confirm_refund(connected.site, _a_reversal(connected, order))
        assert (refused.value.code, refused.value.final) == ("DISPENSED", True)
        assert refused.value.message == "药品已发出，不能退费"
        assert connected.simulator.books()["bills"][number]["red_receipts"] == []

    @pytest.mark.parametrize(
        "fault", [*DONE_BUT_SILENT[:1], "reversed_but_error_500", *DONE_BUT_SILENT[2:], "reversed_but_unlisted_code"]
    )
    async def test_reversed_without_an_answer_is_unknown_and_a_question_settles_it(
        self, connected: Connected, fault: str
    ) -> None:
        number, order = await _a_booked_bill(connected)
        reverse = _a_reversal(connected, order)
        connected.simulator.faults.script(f"hospital.{fault}")
        with pytest.raises((OutcomeUnknown, Refused)) as problem:
            await connected.hospital.confirm_refund(connected.site, reverse)
        assert not getattr(problem.value, "final", False)
        assert (await connected.hospital.query_refund(connected.site, reverse.refund_no)).reversed
        assert len(connected.simulator.books()["bills"][number]["red_receipts"]) == 1

    async def test_already_refunded_is_asked_back_it_may_be_by_us(self, connected: Connected) -> None:
        _, order = await _a_booked_bill(connected)
        reverse = _a_reversal(connected, order)
        await connected.hospital.confirm_refund(connected.site, reverse)
        connected.simulator.faults.script("hospital.refund_repeat_says_refunded")
        assert (await connected.hospital.confirm_refund(connected.site, reverse)).reversed
        blind = replace(connected.site, capabilities=replace(connected.site.capabilities, refund_query=False))
        connected.simulator.faults.script("hospital.refund_repeat_says_refunded")
        with pytest.raises(Refused) as refused:
            await connected.hospital.confirm_refund(blind, reverse)
        assert (refused.value.code, refused.value.final) == ("ALREADY_REFUNDED", False)

    async def test_a_slow_reversal_is_done_within_the_declared_limit(self, connected: Connected) -> None:
        _, order = await _a_booked_bill(connected)
        reverse = _a_reversal(connected, order)
        connected.simulator.faults.script("hospital.reverses_slowly")
        assert not (await connected.hospital.confirm_refund(connected.site, reverse)).reversed
        connected.clock.advance(timedelta(seconds=connected.site.capabilities.processing_limit_seconds))
        assert (await connected.hospital.query_refund(connected.site, reverse.refund_no)).reversed

    async def test_a_red_receipt_of_the_window_says_whose_money_it_is(self, connected: Connected) -> None:
        number, order = await _a_booked_bill(connected)
        red = connected.simulator.reverse_at_window(number, amount_fen=66)
        receipt = await connected.hospital.query_red_receipt(connected.site, red)
        assert (receipt.known, receipt.refund_no, receipt.confirm_no) == (True, "", order.confirm_no)
        assert (dict(receipt.amounts_fen), receipt.money_by) == ({number: 66}, MoneyBy.US_ORIGINAL_ROUTE)
        cash = connected.simulator.reverse_at_window(number, money_by="hospital_cash")
        assert (await connected.hospital.query_red_receipt(connected.site, cash)).money_by is MoneyBy.HOSPITAL_CASH
        assert not (await connected.hospital.query_red_receipt(connected.site, "H0")).known

    @pytest.mark.parametrize("word", ["", "somebody"])
    async def test_a_red_receipt_that_does_not_say_who_pays_is_unknown(self, connected: Connected, word: str) -> None:
        number, _ = await _a_booked_bill(connected)
        red = connected.simulator.reverse_at_window(number, money_by=word)
        assert (await connected.hospital.query_red_receipt(connected.site, red)).money_by is MoneyBy.UNKNOWN

    async def test_our_own_red_receipt_names_our_number(self, connected: Connected) -> None:
        _, order = await _a_booked_bill(connected)
        reverse = _a_reversal(connected, order)
        reversal = await connected.hospital.confirm_refund(connected.site, reverse)
        receipt = await connected.hospital.query_red_receipt(connected.site, reversal.red_receipt_no)
        assert receipt.refund_no == reverse.refund_no

    async def test_a_red_receipt_is_told_with_its_number(self, connected: Connected) -> None:
        number, _ = await _a_booked_bill(connected)
        await _next_event(connected, accept=True)
        red = connected.simulator.reverse_at_window(number)
        event = cast(HospitalEvent, await _next_event(connected, accept=True))
        assert (event.kind, event.red_receipt_no) == (HospitalEventKind.REFUNDED, red)

    # ------------------------------------------------------------ the paid list

    async def test_the_paid_list_has_ours_and_the_windows(self, connected: Connected) -> None:
        start = connected.clock.now()
        at_window = connected.simulator.issue_bill(LABOURER, kind="treatment")
        receipt_no = connected.simulator.window_pay(at_window)
        connected.clock.advance(timedelta(seconds=1))
        ours, _, order = await connected.a_locked_bill()
        await connected.hospital.confirm_payment(connected.site, order)
        end = connected.clock.now()
        window, mobile = await connected.hospital.list_paid(connected.site, LABOURER, start, end + timedelta(seconds=1))
        assert (window.his_bill_id, window.receipt_no, window.paid_by) == (at_window, receipt_no, "window")
        assert window.confirm_no == ""
        assert (mobile.his_bill_id, mobile.confirm_no, mobile.amount_fen) == (ours, order.confirm_no, 3210)
        assert mobile.paid_at == end
        before = await connected.hospital.list_paid(connected.site, LABOURER, start, end)
        assert [record.his_bill_id for record in before] == [at_window]

    async def test_the_statement_lists_everybodys_bookings_page_by_page(self, connected: Connected) -> None:
        start = connected.clock.now()
        at_window = connected.simulator.issue_bill(LABOURER, kind="treatment")
        connected.simulator.window_pay(at_window)
        connected.clock.advance(timedelta(seconds=1))
        ours, _, order = await connected.a_locked_bill()
        await connected.hospital.confirm_payment(connected.site, order)
        end = connected.clock.now() + timedelta(seconds=1)
        page = await connected.hospital.statement(connected.site, start, end, 0)
        assert [(record.his_bill_id, record.confirm_no) for record in page.records] == [
            (at_window, ""),
            (ours, order.confirm_no),
        ]
        assert not page.has_more
        for _ in range(130):
            connected.simulator.window_pay(connected.simulator.issue_bill(LABOURER))
        pages = [await connected.hospital.statement(connected.site, start, end, number) for number in (0, 1)]
        assert [page.has_more for page in pages] == [True, False]
        assert len({record.his_bill_id for page in pages for record in page.records}) == 132

    # ------------------------------------------------------------ events

    async def test_a_new_bill_is_told_and_repeated_until_it_is_accepted(self, connected: Connected) -> None:
        number = connected.simulator.issue_bill(LABOURER)
        first = await _next_event(connected, accept=False)
        connected.clock.advance(timedelta(seconds=10))
        second = await _next_event(connected, accept=True)
        assert isinstance(first, HospitalEvent)
        assert first == second
        assert (first.kind, first.his_bill_id) == (HospitalEventKind.NEW_BILL, number)
        assert first.his_patient_id == LABOURER
        connected.clock.advance(timedelta(days=1))
        assert await _next_event(connected, accept=True) is None

    async def test_what_happens_to_a_bill_is_told(self, connected: Connected) -> None:
        numbers = [connected.simulator.issue_bill(LABOURER) for _ in range(2)]
        connected.simulator.cancel(numbers[0])
        connected.simulator.window_pay(numbers[1])
        connected.simulator.reverse_at_window(numbers[1])
        connected.simulator.send_probe()
        events = [await _next_event(connected, accept=True) for _ in range(6)]
        assert [cast(HospitalEvent, event).kind.value for event in events] == [
            "new_bill", "new_bill", "bill_cancelled", "paid_at_window", "refunded", "probe",
        ]  # fmt: skip

    async def test_a_forged_event_is_not_believed(self, connected: Connected) -> None:
        connected.simulator.faults.script("hospital.event_forged")
        connected.simulator.issue_bill(LABOURER)
        assert isinstance(await _next_event(connected, accept=True), Unverified)
        assert isinstance(await _next_event(connected, accept=True), HospitalEvent)

    async def test_an_event_told_twice_has_one_event_id(self, connected: Connected) -> None:
        connected.simulator.faults.script("hospital.event_duplicated")
        connected.simulator.issue_bill(LABOURER)
        first = await _next_event(connected, accept=True)
        connected.clock.advance(timedelta(seconds=5))
        assert await _next_event(connected, accept=True) == first

    async def test_a_replayed_event_is_refused(self, connected: Connected) -> None:
        connected.simulator.faults.script("hospital.event_replayed")
        connected.simulator.issue_bill(LABOURER)
        assert isinstance(await _next_event(connected, accept=True), HospitalEvent)
        connected.clock.advance(timedelta(seconds=5))
        assert isinstance(await _next_event(connected, accept=True), Unverified)

    async def test_the_same_arrival_read_twice_is_no_replay(self, connected: Connected) -> None:
        request = await _next_request(connected)
        now = connected.clock.now()
        connected.clock.advance(timedelta(hours=1))
        read = [
            await connected.hospital.read_event(connected.site, request.headers, request.body, now) for _ in range(2)
        ]
        assert isinstance(read[0], HospitalEvent)
        assert read[0] == read[1]

    @pytest.mark.parametrize("harm", ["body", "old", "future", "unsigned", "other key", "no nonce"])
    async def test_a_harmed_event_is_not_believed(self, connected: Connected, harm: str) -> None:
        request = await _next_request(connected)
        headers, body, now = dict(request.headers), request.body, connected.clock.now()
        if harm == "body":
            body = body.replace(b"P10005", b"P10006")
        elif harm == "old":
            now += timedelta(seconds=301)
        elif harm == "future":
            now -= timedelta(seconds=301)
        elif harm == "unsigned":
            headers = {"content-type": "application/json"}
        elif harm == "other key":
            headers["zhenfu-key"] = "somebody"
        else:
            del headers["zhenfu-nonce"]
        read = await connected.hospital.read_event(connected.site, headers, body, now)
        assert isinstance(read, Unverified)

    # ------------------------------------------------------------ keys, and what must not leak

    async def test_two_keys_are_valid_while_one_replaces_the_other(self, connected: Connected) -> None:
        old = dict(connected.site.params)
        fresh = {"key_id": "his-2", "secret": "the-second-secret-of-this-hospital-000"}
        connected.simulator.add_key(fresh["key_id"], fresh["secret"])
        both = {**fresh, "other_key_id": old["key_id"], "other_secret": old["secret"]}
        rotated = replace(connected.site, params=both)
        request = await _next_request(connected)  # signed with the old key
        now = connected.clock.now()
        event = await connected.hospital.read_event(rotated, request.headers, request.body, now)
        assert isinstance(event, HospitalEvent)
        assert await connected.hospital.check(rotated)
        assert await connected.hospital.check(connected.site)
        connected.simulator.drop_key(old["key_id"])
        with pytest.raises(CounterpartyError):
            await connected.hospital.check(connected.site)
        assert await connected.hospital.check(rotated)

    async def test_errors_and_reprs_tell_nothing_private(self, connected: Connected) -> None:
        secret = connected.site.params["secret"]
        person = READY_PEOPLE[0]
        identifier = Identifier(type=IdentifierType.ID_CARD, value=dict(person.identifiers)["id_card"])
        [patient, _] = await connected.hospital.find_patients(connected.site, identifier)
        connected.simulator.faults.script("hospital.answer_unsigned")
        with pytest.raises(OutcomeUnknown) as unknown:
            await connected.hospital.find_patients(connected.site, identifier)
        told = repr([connected.site, patient, identifier, unknown.value, connected.line.requests])
        for private in (secret, person.name, identifier.value, person.phones[0]):
            assert private not in told

    async def test_check_says_that_all_is_well_and_moves_nothing(self, connected: Connected) -> None:
        before = connected.simulator.books()["bills"]
        assert "answers" in await connected.hospital.check(connected.site)
        assert connected.simulator.books()["bills"] == before


async def _a_booked_bill(connected: Connected) -> tuple[str, ConfirmOrder]:
    """Two items over 12.34 and 0.66, paid through us."""
    number = connected.simulator.issue_bill(LABOURER, items=[("黄芪", 1234), ("当归", 66)])
    _, _, order = await connected.a_locked_bill(number)
    await connected.hospital.confirm_payment(connected.site, order)
    return number, order


def _a_reversal(
    connected: Connected, order: ConfirmOrder, amount_fen: int | None = None, item_ids: tuple[str, ...] = ()
) -> ReverseOrder:
    """Of everything that was booked, unless a part is named."""
    (line,) = order.lines
    return ReverseOrder(
        refund_no="R" + connected.a_confirm_no()[1:],
        order_no=order.order_no,
        his_patient_id=order.his_patient_id,
        lines=(
            ReverseLine(
                confirm_no=order.confirm_no,
                his_bill_id=line.his_bill_id,
                amount_fen=line.amount_fen if amount_fen is None else Fen(amount_fen),
                item_ids=item_ids,
            ),
        ),
        reason="药品未取",
    )


def _two_bills_of_one_visit(connected: Connected) -> list[str]:
    """Over 1.00 and 2.50, and the hospital lets them be paid together."""
    return [connected.simulator.issue_bill(LABOURER, total_fen=fen, merge_group="MZ1") for fen in (100, 250)]


async def _next_request(connected: Connected) -> Request:
    """The next event as it would arrive, without an answer to it."""
    if not connected.simulator.deliveries.waiting:
        connected.simulator.issue_bill(LABOURER)
    caught: list[Request] = []

    async def post(url: str, request: Request) -> Response:
        assert url == EVENTS_URL
        caught.append(request)
        return Response(status=503)

    assert await deliver_one(connected.simulator, post)
    return caught[0]


async def _next_event(connected: Connected, *, accept: bool) -> HospitalEvent | Unverified | None:
    """Deliver the next due event and answer as the endpoint does; None when nothing is due."""
    read: list[HospitalEvent | Unverified] = []

    async def post(url: str, request: Request) -> Response:
        now = connected.clock.now()
        event = await connected.hospital.read_event(connected.site, request.headers, request.body, now)
        read.append(event)
        taken = connected.hospital.acknowledge(accepted=accept and isinstance(event, HospitalEvent))
        return Response(status=taken.status, body=taken.body)

    if not await deliver_one(connected.simulator, post):
        return None
    return read[0]
