"""Papers, guesses, consents and phone codes: what opens to whom, how often one may try, and what withdrawing ends."""

from __future__ import annotations

import asyncio
import base64
import contextvars
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from core.consents import ConsentKind, GivenConsent
from core.errors import (
    BillNotPayable,
    ConsentNeeded,
    FactorLocked,
    FactorWrong,
    HospitalUnavailable,
    InvalidRequest,
    NotFound,
    NotReached,
    OutcomeUnknown,
    PatientNotBound,
    PhoneCodeRefused,
    RequestError,
)
from core.guesses import Guesses, GuessLimit
from core.models import (
    Binding,
    Consent,
    Guess,
    HospitalSiteRow,
    Institution,
    Message,
    PaperGrant,
    PaperLink,
    Patient,
    Payer,
    PhoneCode,
)
from core.paper import GRANT_LIFE, GUESSES_AT_PAPER, GUESSES_OF_ONE, GUESSES_OF_PAYER, Paper, PaperStage, paper_token
from core.patients import Patients
from simulators.hospital_stock import READY_PEOPLE, Doctor
from tests.support.fakes import Phonebook, held, with_phones
from tests.support.house import ELDER, LABOURER, House

PAPER_KEY = "a-key-for-papers-of-at-least-32-characters"
PHONE_TAIL, OTHER_PHONE_TAIL = "0001", "0011"
DOCUMENT_TAIL = dict(READY_PEOPLE[0].identifiers)["id_card"][-4:]
WRONG = "9999"
STRANGER = ("过路人", "19900000099")


async def change_settings(house: House, **settings: Any) -> None:
    await Institution.filter(id=house.institution_id).update(settings=settings)


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(settings={"paper_code": "his_asks"})


async def a_paper(house: House, his_patient_id: str = ELDER, **bill: Any) -> Paper:
    (site,) = await house.services.institutions.sites(house.institution_id)
    return await house.services.papers.read(await house.services.papers.link(site, house.bill(his_patient_id, **bill)))


async def agrees(house: House, payer: Payer, version: str = "1") -> None:
    await house.services.consents.give(payer, ConsentKind.PERSONAL, version=version, way="miniprogram")


async def a_stranger(house: House, *, agreed: bool = True) -> Payer:
    payer = await house.payer(*STRANGER)
    if agreed:
        await agrees(house, payer)
    return payer


def wrong(number: int) -> str:
    """Other digits for each number up to 999; nobody's phone or document ends with them."""
    return f"9{number:03d}"


async def counts(house: House) -> list[int]:
    """Of one payer at one paper, of this payer at all papers, of all at this paper."""
    rows = [await Guess.get(subject__not="", actor__not=""), await Guess.get(subject=""), await Guess.get(actor="")]
    assert {row.institution_id for row in rows} == {house.institution_id}
    return [row.count for row in rows]


async def said(work: Any) -> RequestError:
    """The refusal that this ends with."""
    try:
        await work
    except RequestError as error:
        return error
    raise AssertionError("nothing was refused")


# ---------------------------------------------------------------- addresses


async def test_the_same_bill_has_the_same_address_and_only_a_hash_of_it_is_kept(house: House) -> None:
    papers = house.services.papers
    (site,) = await house.services.institutions.sites(house.institution_id)
    bill = house.bill()
    tokens = set(await asyncio.gather(*(papers.link(site, bill) for _ in range(8))))
    assert len(tokens) == 1
    (token,) = tokens
    assert papers.url(token) == f"http://house.test/p/{token}"
    (row,) = await PaperLink.all().values()
    assert token not in repr(row)
    assert await papers.link(site, house.bill()) != token


async def test_what_is_no_address_of_ours_is_no_paper(house: House) -> None:
    paper = await a_paper(house)
    for token in ("", "x", paper.token[:-1], paper.token + "A", paper.token.swapcase(), "A" * 600, "é", "a/b", "a\x00"):
        with pytest.raises(NotFound) as refused:
            await house.services.papers.read(token)
        assert refused.value.values == {"reason": "paper"}


@pytest.mark.parametrize("setting", ["off", "his_makes", "barcode"])
async def test_an_institution_that_has_changed_its_way_has_withdrawn_the_old_addresses(
    house: House, setting: str
) -> None:
    paper = await a_paper(house)
    await change_settings(house, paper_code=setting)
    with pytest.raises(NotFound):
        await house.services.papers.read(paper.token)


# ---------------------------------------------------------------- made by the HIS


@pytest.fixture
async def makes(house: House) -> House:
    """An institution whose HIS makes the addresses itself."""
    await change_settings(house, paper_code="his_makes")
    params = {"key_id": house.his.key_id, "secret": house.his.keys[house.his.key_id], "paper_key": PAPER_KEY}
    sealed = house.services.outside.keyring.encrypt_json(params, place="hospital_site.params")
    await HospitalSiteRow.filter(id=house.site_id).update(params_enc=sealed)
    return house


async def test_an_address_that_the_his_has_made_opens_its_bill(makes: House) -> None:
    bill = makes.bill()
    token = paper_token(PAPER_KEY.encode(), "renhe", "", bill)
    paper = await makes.services.papers.read(token)
    assert (paper.his_bill_id, paper.token, paper.factor_compulsory) == (bill, token, False)
    stranger = await a_stranger(makes)
    assert (await makes.services.papers.look(paper, stranger)).stage is PaperStage.FACTOR
    assert await PaperLink.all().count() == 0


async def test_an_address_that_the_his_has_not_made_is_no_paper(makes: House) -> None:
    bill, key = makes.bill(), PAPER_KEY.encode()
    good = paper_token(key, "renhe", "", bill)
    _, payload, mac = good.split(".")
    other = base64.urlsafe_b64encode(b"renhe\n\nCF0").decode().rstrip("=")
    for token in (
        f"h1.{payload}.",
        f"h1..{mac}",
        f"h1.{payload}",
        f"h1.{other}.{mac}",
        f"h1.{payload}.{mac[:-1]}A" if not mac.endswith("A") else f"h1.{payload}.{mac[:-1]}Q",
        f"h1.{payload}.{mac}.x",
        f"h1.{payload}=.{mac}",
        f"h2.{payload}.{mac}",
        paper_token(b"x" * 32, "renhe", "", bill),
        paper_token(b"", "renhe", "", bill),
        paper_token(key, "renhe", "north", bill),
        paper_token(key, "renhe", "", ""),
        paper_token(key, "nobody", "", bill),
        paper_token(key, "ren\x00he", "", bill),
        paper_token(key, "renhe\n", "", bill),
    ):
        with pytest.raises(NotFound) as refused:
            await makes.services.papers.read(token)
        assert refused.value.values == {"reason": "paper"}, token


async def test_a_his_without_a_paper_key_makes_no_addresses(house: House) -> None:
    await change_settings(house, paper_code="his_makes")
    with pytest.raises(NotFound):
        await house.services.papers.read(paper_token(b"", "renhe", "", house.bill()))


# ---------------------------------------------------------------- who sees what


async def test_a_stranger_sees_hospital_masked_name_and_day_and_nothing_else(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house, agreed=False)
    view = await house.services.papers.look(paper, stranger)
    assert (view.stage, view.masked_name, view.issued_on) == (PaperStage.CONSENT, "王*兰", house.clock.now().date())
    assert (view.bill, view.others, view.patient_id, view.own_order_no) == (None, (), None, "")
    await agrees(house, stranger)
    view = await house.services.papers.look(paper, stranger)
    assert (view.stage, view.asks_phone, view.asks_document) == (PaperStage.FACTOR, True, True)
    assert (view.bill, view.others, view.patient_id) == (None, (), None)
    assert await Patient.all().count() == 0


@pytest.mark.parametrize("factor", [PHONE_TAIL, OTHER_PHONE_TAIL, DOCUMENT_TAIL, " 0 001 ", "０００１"])
async def test_the_last_four_of_any_number_that_the_his_holds_open_the_visit(house: House, factor: str) -> None:
    visit = {"visit_no": "MZ1"}
    other, elsewhere = house.bill(**visit, total_fen=100), house.bill(total_fen=200, visit_no="MZ2")
    paper, stranger = await a_paper(house, **visit), await a_stranger(house)
    patient = await house.services.papers.prove(paper, stranger, factor)
    view = await house.services.papers.look(paper, stranger)
    assert (view.stage, view.patient_id) == (PaperStage.OPEN, patient)
    assert view.bill is not None
    assert view.bill.bill.his_bill_id == paper.his_bill_id
    assert [shown.bill.his_bill_id for shown in view.others] == [other]
    bills = house.services.bills
    await bills.detail(house.institution_id, stranger.id, patient, "", other)
    with pytest.raises(NotFound):
        await bills.detail(house.institution_id, stranger.id, patient, "", elsewhere)
    with pytest.raises(PatientNotBound):
        await bills.unpaid(house.institution_id, stranger.id, patient)


@pytest.mark.parametrize(("his_patient_id", "factor"), [("P10006", "0006"), ("P10003", "0003"), ("P10003", "0002")])
async def test_passports_and_an_infants_papers_open_too(house: House, his_patient_id: str, factor: str) -> None:
    paper, stranger = await a_paper(house, his_patient_id), await a_stranger(house)
    await house.services.papers.prove(paper, stranger, factor)
    assert (await house.services.papers.look(paper, stranger)).stage is PaperStage.OPEN


async def test_a_letter_in_the_document_counts_in_either_case(house: House) -> None:
    person = house.his.patients[LABOURER]
    house.his.patients[LABOURER] = type(person)(
        **{**vars(person), "identifiers": (("id_card", "11010519491231002X"),), "phones": ()}
    )
    paper, stranger = await a_paper(house, LABOURER), await a_stranger(house)
    view = await house.services.papers.look(paper, stranger)
    assert (view.asks_phone, view.asks_document) == (False, True)
    await house.services.papers.prove(paper, stranger, "002x")


@pytest.mark.parametrize("factor", ["", "1", "12345", "00 1", "----", "０００", "一二三四", "0001\x00"])
async def test_what_cannot_be_a_factor_costs_no_guess(house: House, factor: str) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    with pytest.raises(InvalidRequest):
        await house.services.papers.prove(paper, stranger, factor)
    assert await Guess.all().count() == 0


async def test_without_consent_nothing_is_compared(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house, agreed=False)
    with pytest.raises(ConsentNeeded):
        await house.services.papers.prove(paper, stranger, PHONE_TAIL)
    await agrees(house, stranger, version="0")
    with pytest.raises(ConsentNeeded):
        await house.services.papers.prove(paper, stranger, PHONE_TAIL)
    assert await Guess.all().count() == 0


async def test_a_person_of_whom_the_his_knows_no_number_is_sent_to_the_window(house: House) -> None:
    person = house.his.patients[LABOURER]
    house.his.patients[LABOURER] = type(person)(**{**vars(person), "identifiers": (("passport", "123"),), "phones": ()})
    paper, stranger = await a_paper(house, LABOURER), await a_stranger(house)
    assert (await house.services.papers.look(paper, stranger)).stage is PaperStage.WINDOW
    assert isinstance(await said(house.services.papers.prove(paper, stranger, "0123")), FactorWrong)


async def test_who_has_bound_the_patient_sees_the_paper_at_once(house: House) -> None:
    paper, payer = await a_paper(house), await house.payer()
    patient = await house.bound(payer)
    view = await house.services.papers.look(paper, payer)
    assert (view.stage, view.patient_id) == (PaperStage.OPEN, patient)
    assert await house.services.papers.prove(await a_paper(house), await agreeing(house, payer), WRONG) == patient
    assert await Guess.all().count() == 0


async def agreeing(house: House, payer: Payer) -> Payer:
    await agrees(house, payer)
    return payer


async def test_an_opened_paper_closes_after_a_day_and_is_nobody_elses(house: House) -> None:
    paper, stranger = await a_paper(house, valid_days=30), await a_stranger(house)
    await house.services.papers.prove(paper, stranger, PHONE_TAIL)
    another = await agreeing(house, await house.payer("另一人", "19900000098"))
    assert (await house.services.papers.look(paper, another)).stage is PaperStage.FACTOR
    house.clock.advance(GRANT_LIFE - timedelta(seconds=1))
    assert (await house.services.papers.look(paper, stranger)).stage is PaperStage.OPEN
    house.clock.advance(timedelta(seconds=1))
    assert (await house.services.papers.look(paper, stranger)).stage is PaperStage.FACTOR


async def test_another_institutions_payer_learns_nothing(house: House) -> None:
    paper, payer = await a_paper(house), await a_stranger(house)
    payer.institution_id = await house.setup.institution(code="anhe", name_zh="安和医院")
    for attempt in (
        house.services.papers.look(paper, payer),
        house.services.papers.prove(paper, payer, PHONE_TAIL),
        house.services.papers.prove(paper, payer, WRONG),
    ):
        assert (await said(attempt)).values == {"reason": "paper"}
    assert await Guess.all().count() == 0


async def test_a_silent_his_opens_nothing_and_costs_no_guess(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    his = held(house.services.outside.hospitals, "rest")
    for call, error in (("get_patient", OutcomeUnknown("silence")), ("get_bill", NotReached("nobody there"))):
        his.fail(call, error)
        with pytest.raises(HospitalUnavailable):
            await house.services.papers.look(paper, stranger)
        with pytest.raises(HospitalUnavailable):
            await house.services.papers.prove(paper, stranger, PHONE_TAIL)
    assert await Guess.all().count() == 0
    assert await PaperGrant.all().count() == 0


async def test_a_bill_that_the_his_no_longer_has_is_no_paper_and_a_cancelled_one_cannot_be_paid(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    patient = await house.services.papers.prove(paper, stranger, PHONE_TAIL)
    house.his.cancel(paper.his_bill_id)
    view = await house.services.papers.look(paper, stranger)
    assert view.bill is not None
    assert (view.bill.payable, view.bill.reason) == (False, "cancelled")
    with pytest.raises(BillNotPayable):
        await house.start(stranger, patient, paper.his_bill_id)
    del house.his.bills[paper.his_bill_id]
    assert (await said(house.services.papers.look(paper, stranger))).values == {"reason": "paper"}


async def test_a_paper_is_paid_by_whoever_has_opened_it(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    patient = await house.services.papers.prove(paper, stranger, PHONE_TAIL)
    started = await house.start(stranger, patient, paper.his_bill_id)
    view = await house.services.papers.look(paper, stranger)
    assert view.own_order_no == started.order_no
    assert (await house.services.papers.look(paper, await house.payer("另一人", "19900000098"))).own_order_no == ""
    house.pay_sheet(started)
    await house.settle()
    assert house.his.books()["bills"][paper.his_bill_id]["times_booked"] == 1
    assert (await house.services.papers.look(paper, stranger)).own_order_no == started.order_no


# ---------------------------------------------------------------- the paper itself as proof, and departments


async def test_where_the_paper_is_enough_only_sensitive_departments_ask_for_more(house: House) -> None:
    await change_settings(house, paper_code="his_asks", paper_factor="none", sensitive_departments=["精神", "感染"])
    plain = await a_paper(house, doctor=Doctor(name="张医生", department="内科门诊"))
    sensitive = await a_paper(house, doctor=Doctor(name="孙医生", department="精神卫生科"))
    stranger = await a_stranger(house, agreed=False)
    assert (await house.services.papers.look(plain, stranger)).stage is PaperStage.CONSENT
    await agrees(house, stranger)
    assert (await house.services.papers.look(plain, stranger)).stage is PaperStage.OPEN
    assert (await house.services.papers.look(sensitive, stranger)).stage is PaperStage.FACTOR
    assert house.his.bills[plain.his_bill_id].visit_no == house.his.bills[sensitive.his_bill_id].visit_no
    view = await house.services.papers.look(plain, stranger)
    assert view.others == ()
    assert view.patient_id is not None
    with pytest.raises(NotFound):
        await house.services.bills.detail(house.institution_id, stranger.id, view.patient_id, "", sensitive.his_bill_id)
    for _ in range(3):
        await house.services.papers.look(plain, stranger)
    assert await PaperGrant.all().count() == 1
    await house.services.papers.prove(sensitive, stranger, PHONE_TAIL)
    others = (await house.services.papers.look(plain, stranger)).others
    assert [shown.bill.his_bill_id for shown in others] == [sensitive.his_bill_id]


@pytest.mark.parametrize("setting", ["barcode", "his_asks", "his_makes"])
async def test_who_comes_with_a_number_must_always_know_the_factor(house: House, setting: str) -> None:
    await change_settings(house, paper_code=setting, paper_factor="none")
    bill, stranger = house.bill(), await a_stranger(house)
    token = await house.services.papers.by_barcode(stranger, f" {bill} ")
    paper = await house.services.papers.read(token)
    assert (paper.his_bill_id, paper.factor_compulsory) == (bill, True)
    assert (await house.services.papers.look(paper, stranger)).stage is PaperStage.FACTOR
    await house.services.papers.prove(paper, stranger, PHONE_TAIL)


async def test_numbers_cannot_be_tried_out(house: House) -> None:
    await change_settings(house, paper_code="barcode")
    stranger, papers = await a_stranger(house), house.services.papers
    for code in ("", "中", "a b", "x" * 65, "a\n"):
        with pytest.raises((InvalidRequest, NotFound)):
            await papers.by_barcode(stranger, code)
    await Guess.all().delete()
    for number in range(GUESSES_OF_PAYER.most):
        assert (await said(papers.by_barcode(stranger, f"CF{number}"))).values == {"reason": "paper"}
    for code in ("CF-99", house.bill()):
        locked = await said(papers.by_barcode(stranger, code))
        assert (locked.code, locked.values) == ("factor_locked", {"minutes": 24 * 60})
    house.clock.advance(timedelta(days=1))
    await papers.by_barcode(stranger, house.bill())


async def test_where_papers_are_off_no_number_opens_anything(house: House) -> None:
    await change_settings(house)
    with pytest.raises(NotFound):
        await house.services.papers.by_barcode(await a_stranger(house), house.bill())


# ---------------------------------------------------------------- guesses


async def test_five_wrong_guesses_lock_and_the_right_one_is_then_refused_too(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    prove = house.services.papers.prove
    for left in (4, 3, 2, 1, 0):
        assert (await said(prove(paper, stranger, wrong(left)))).values == {"left": left}
    locked = await said(prove(paper, stranger, PHONE_TAIL))
    assert (locked.code, locked.values) == ("factor_locked", {"minutes": 15})
    house.clock.advance(timedelta(minutes=15) - timedelta(seconds=1))
    assert (await said(prove(paper, stranger, PHONE_TAIL))).values == {"minutes": 1}  # trying has not made it longer
    house.clock.advance(timedelta(seconds=1))
    await prove(paper, stranger, PHONE_TAIL)


async def test_a_hundred_wrong_guesses_at_once_are_no_more_than_the_limit(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    prove = house.services.papers.prove
    asked = [said(prove(paper, stranger, f"{number + 5000:04d}")) for number in range(100)]
    found = await asyncio.gather(*asked)
    compared = [error for error in found if isinstance(error, FactorWrong)]
    assert len(compared) <= GUESSES_OF_ONE.most
    assert all(isinstance(error, FactorWrong | FactorLocked | HospitalUnavailable) for error in found)
    row = await Guess.get(subject__not="", actor=str(stranger.id))
    assert row.count > GUESSES_OF_ONE.most
    assert isinstance(await said(prove(paper, stranger, PHONE_TAIL)), FactorLocked)


async def test_counting_alone_lets_exactly_the_limit_through(house: House) -> None:
    guesses, limit = Guesses(house.services.outside), GuessLimit(most=7, per=timedelta(minutes=1))

    async def one() -> int | None:
        try:
            return (await guesses.count(house.institution_id, subject="s", actor="a", limit=limit)).left
        except FactorLocked:
            return None

    found = await asyncio.gather(*(one() for _ in range(100)))
    assert sorted(left for left in found if left is not None) == list(range(7))


async def test_the_same_wrong_digits_again_are_the_same_guess(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    fresh = type(house.services).on(house.services.outside)
    for services in (house.services, house.services, fresh, house.services):
        for factor in (WRONG, " ９９99 "):
            assert (await said(services.papers.prove(paper, stranger, factor))).values == {"left": 4}
    assert await counts(house) == [1, 1, 1]
    assert (await said(fresh.papers.prove(paper, stranger, wrong(1)))).values == {"left": 3}
    assert await counts(house) == [2, 2, 2]


async def test_the_same_wrong_digits_twenty_times_at_once_are_one_guess(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    programs = [house.services, type(house.services).on(house.services.outside)]
    asked = [said(programs[number % 2].papers.prove(paper, stranger, WRONG)) for number in range(20)]
    found = await asyncio.gather(*asked)
    assert {error.values["left"] for error in found if isinstance(error, FactorWrong)} == {4}
    assert all(isinstance(error, FactorWrong | HospitalUnavailable) for error in found)
    assert await counts(house) == [1, 1, 1]


async def test_digits_that_take_turns_are_a_guess_each(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    for left, factor in zip((4, 3, 2, 1), (wrong(1), wrong(2)) * 2, strict=True):
        assert (await said(house.services.papers.prove(paper, stranger, factor))).values == {"left": left}
    assert await counts(house) == [4, 4, 4]


async def test_the_last_guess_again_neither_locks_nor_lengthens_the_pause(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    prove = house.services.papers.prove
    for number in range(5):
        await said(prove(paper, stranger, wrong(number)))
    house.clock.advance(timedelta(minutes=14))
    assert (await said(prove(paper, stranger, wrong(4)))).values == {"left": 0}
    assert (await said(prove(paper, stranger, wrong(5)))).values == {"minutes": 1}
    house.clock.advance(timedelta(minutes=1))
    await prove(paper, stranger, PHONE_TAIL)


async def test_two_strangers_with_the_same_digits_are_two_guesses_at_the_paper(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    another = await agreeing(house, await house.payer("另一人", "19900000098"))
    for payer in (stranger, another):
        assert isinstance(await said(house.services.papers.prove(paper, payer, WRONG)), FactorWrong)
    assert (await Guess.get(actor="")).count == 2


async def test_the_right_digits_twenty_times_at_once_open_the_paper_and_leave_no_count(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    await said(house.services.papers.prove(paper, stranger, WRONG))
    asked = [house.services.papers.prove(paper, stranger, PHONE_TAIL) for _ in range(20)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    opened = [each for each in found if isinstance(each, UUID)]
    assert len(set(opened)) == 1
    assert all(isinstance(each, UUID | HospitalUnavailable) for each in found)
    assert [(await Guess.get(subject="")).count, (await Guess.get(actor="")).count] == [1, 1]


async def test_a_new_program_knows_what_was_guessed_before(house: House) -> None:
    paper, stranger = await a_paper(house), await a_stranger(house)
    for number in range(5):
        await said(house.services.papers.prove(paper, stranger, wrong(number)))
    fresh = type(house.services).on(house.services.outside)
    assert isinstance(await said(fresh.papers.prove(paper, stranger, PHONE_TAIL)), FactorLocked)


async def test_one_payer_cannot_go_from_paper_to_paper(house: House) -> None:
    stranger = await a_stranger(house)
    for _ in range(GUESSES_OF_PAYER.most // 4):
        paper = await a_paper(house)
        for number in range(4):
            assert isinstance(await said(house.services.papers.prove(paper, stranger, wrong(number))), FactorWrong)
    last = await a_paper(house)
    for _ in range(3):  # the same again comes no further
        locked = await said(house.services.papers.prove(last, stranger, PHONE_TAIL))
        assert locked.values == {"minutes": 24 * 60}


async def test_many_strangers_cannot_share_a_paper_and_its_family_is_not_locked_out(house: House) -> None:
    paper, family = await a_paper(house), await house.payer()
    patient = await house.bound(family)
    for number in range(GUESSES_AT_PAPER.most // 5):
        stranger = await agreeing(house, await house.payer("人", f"198{number:08d}"))
        for guess in range(5):  # each the same five
            assert isinstance(await said(house.services.papers.prove(paper, stranger, wrong(guess))), FactorWrong)
    late = await a_stranger(house)
    for _ in range(3):
        assert isinstance(await said(house.services.papers.prove(paper, late, PHONE_TAIL)), FactorLocked)
    assert (await house.services.papers.look(paper, family)).patient_id == patient
    other = await a_paper(house)
    await house.services.papers.prove(other, late, PHONE_TAIL)


async def test_who_opens_many_papers_rightly_is_never_locked(house: House) -> None:
    """A grandmother's papers, one after the other, each with a slip of the finger now and then."""
    stranger = await a_stranger(house)
    for number in range(GUESSES_OF_PAYER.most + 2):
        paper = await a_paper(house, visit_no=f"MZ{number}")
        if number % 2:
            assert isinstance(await said(house.services.papers.prove(paper, stranger, WRONG)), FactorWrong)
        await house.services.papers.prove(paper, stranger, PHONE_TAIL)
    assert (await Guess.get(subject="", actor=str(stranger.id))).count == (GUESSES_OF_PAYER.most + 2) // 2


# ---------------------------------------------------------------- consents


async def test_a_consent_is_recorded_once_with_version_time_and_way(house: House) -> None:
    payer, consents = await house.payer(), house.services.consents
    given = set(
        await asyncio.gather(*(consents.give(payer, ConsentKind.PERSONAL, version="1", way="h5") for _ in range(5)))
    )
    assert len(given) == 1
    assert await consents.given(payer) == [
        GivenConsent(kind=ConsentKind.PERSONAL, version="1", way="h5", given_at=house.clock.now())
    ]
    assert await consents.required(payer, ConsentKind.PERSONAL, version="1") in given
    with pytest.raises(ConsentNeeded):
        await consents.required(payer, ConsentKind.PERSONAL, version="2")
    with pytest.raises(ConsentNeeded):
        await consents.required(payer, ConsentKind.SMS, version="1")


async def test_withdrawing_closes_papers_and_bindings_and_stays_on_record(house: House) -> None:
    payer, consents = await house.payer(), house.services.consents
    patient = await house.bound(payer)
    await agrees(house, payer)
    paper = await a_paper(house, LABOURER)
    opened = await house.services.papers.prove(paper, payer, "0005")
    await consents.give(payer, ConsentKind.SMS, version="1", way="h5", phone="19900000001")
    await consents.withdraw(payer, ConsentKind.PERSONAL)
    assert await consents.given(payer) == []
    assert await consents.phone(payer) == ""
    assert await house.services.patients.bound(payer) == []
    for each in (patient, opened):
        with pytest.raises(PatientNotBound):
            await house.services.patients.access(house.institution_id, payer.id, each)
    assert (await house.services.papers.look(paper, payer)).stage is PaperStage.CONSENT
    with pytest.raises(ConsentNeeded):
        await house.services.papers.prove(paper, payer, "0005")
    assert await Consent.filter(withdrawn_at__isnull=False).count() == 2
    assert await Binding.filter(removed_at__isnull=False).count() == 1
    await agrees(house, payer)
    assert (await house.services.papers.look(paper, payer)).stage is PaperStage.FACTOR  # agreeing again opens nothing
    await consents.withdraw(payer, ConsentKind.PERSONAL)
    await consents.withdraw(payer, ConsentKind.PERSONAL)


async def test_withdrawing_sms_leaves_the_rest(house: House) -> None:
    payer, consents = await house.payer(), house.services.consents
    await house.bound(payer)
    await agrees(house, payer)
    for phone in ("19900000001", "19900000011"):
        await consents.give(payer, ConsentKind.SMS, version="1", way="h5", phone=phone)
    assert await consents.phone(payer) == "19900000011"
    (row,) = await Consent.filter(kind="sms", withdrawn_at=None).values()
    assert "19900000011" not in repr(row)
    await consents.withdraw(payer, ConsentKind.SMS)
    assert await consents.phone(payer) == ""
    assert [each.kind for each in await consents.given(payer)] == [ConsentKind.PERSONAL]
    assert len(await house.services.patients.bound(payer)) == 1


# ---------------------------------------------------------------- phone codes


PHONE = "19900000001"


@pytest.fixture
async def phonebook(house: House) -> Phonebook:
    return await with_phones(house)


async def a_code(house: House, book: Phonebook, payer: Payer, phone: str = PHONE) -> str:
    await house.services.phones.send_code(payer, phone)
    await house.settle(within=timedelta(0))
    return book.code()


async def test_a_code_proves_a_phone_once(house: House, phonebook: Phonebook) -> None:
    payer, phones = await house.payer(), house.services.phones
    code = await a_code(house, phonebook, payer, "+86 199-0000 000１")
    assert (phonebook.sent[0].address, len(code), code.isdigit()) == (PHONE, 6, True)
    assert await phones.check_code(payer, PHONE, f" {code} ") == PHONE
    assert (await said(phones.check_code(payer, PHONE, code))).values == {"reason": "lapsed"}
    stored = repr([*await PhoneCode.all().values(), *await Message.all().values()])
    assert code not in stored
    assert PHONE not in stored


async def test_a_code_is_of_one_payer_and_one_phone(house: House, phonebook: Phonebook) -> None:
    payer, phones = await house.payer(), house.services.phones
    code = await a_code(house, phonebook, payer)
    other = await house.payer(*STRANGER)
    for who, phone in ((other, PHONE), (payer, "19900000011")):
        assert (await said(phones.check_code(who, phone, code))).values == {"reason": "lapsed"}
    await phones.check_code(payer, PHONE, code)


async def test_five_wrong_tries_end_a_code_also_all_at_once(house: House, phonebook: Phonebook) -> None:
    payer, phones = await house.payer(), house.services.phones
    code = await a_code(house, phonebook, payer)
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    found = await asyncio.gather(*(said(phones.check_code(payer, PHONE, wrong)) for _ in range(30)))
    assert [error.values["reason"] for error in found].count("wrong") == 5
    assert (await said(phones.check_code(payer, PHONE, code))).values == {"reason": "lapsed"}


async def test_a_code_lapses_after_five_minutes(house: House, phonebook: Phonebook) -> None:
    payer, phones = await house.payer(), house.services.phones
    first = await a_code(house, phonebook, payer)
    house.clock.advance(timedelta(minutes=5))
    assert (await said(phones.check_code(payer, PHONE, first))).values == {"reason": "lapsed"}
    second = await a_code(house, phonebook, payer)
    house.clock.advance(timedelta(minutes=5) - timedelta(seconds=1))
    await phones.check_code(payer, PHONE, second)


async def test_a_new_code_takes_the_place_of_the_old_one(house: House, phonebook: Phonebook) -> None:
    payer, phones = await house.payer(), house.services.phones
    first = await a_code(house, phonebook, payer)
    house.clock.advance(timedelta(seconds=60))
    second = await a_code(house, phonebook, payer)
    assert first != second
    assert (await said(phones.check_code(payer, PHONE, first))).values == {"reason": "wrong"}
    await phones.check_code(payer, PHONE, second)


async def test_codes_to_a_phone_and_of_a_payer_are_spaced_and_few(house: House, phonebook: Phonebook) -> None:
    payer, other, phones = await house.payer(), await house.payer(*STRANGER), house.services.phones
    await phones.send_code(payer, PHONE)
    for who, phone in ((payer, PHONE), (other, PHONE), (payer, "19900000011")):
        assert (await said(phones.send_code(who, phone))).values == {"reason": "too_soon"}
    for _ in range(4):
        house.clock.advance(timedelta(seconds=60))
        await phones.send_code(payer, PHONE)
    house.clock.advance(timedelta(seconds=60))
    for who, phone in ((payer, PHONE), (other, PHONE), (payer, "19900000011")):
        assert (await said(phones.send_code(who, phone))).values == {"reason": "too_many"}
    house.clock.advance(timedelta(days=1))
    await phones.send_code(other, PHONE)


async def test_many_payers_at_once_send_one_code_to_a_phone(house: House, phonebook: Phonebook) -> None:
    payers = [await house.payer("人", f"198{number:08d}") for number in range(8)]

    async def one(payer: Payer) -> str:
        try:
            await house.services.phones.send_code(payer, PHONE)
        except PhoneCodeRefused as refused:
            return str(refused.values["reason"])
        return "sent"

    found = await asyncio.gather(*(one(payer) for payer in payers))
    assert sorted(found) == ["sent"] + ["too_soon"] * 7
    assert await PhoneCode.all().count() == 1


@pytest.mark.parametrize("phone", ["", "123", "12345678901", "+852 91234567", "199000000011", "1990000000x"])
async def test_only_mainland_mobiles_are_written_to(house: House, phonebook: Phonebook, phone: str) -> None:
    with pytest.raises(InvalidRequest):
        await house.services.phones.send_code(await house.payer(), phone)
    assert await PhoneCode.all().count() == 0


async def test_without_an_account_no_code_is_promised(house: House) -> None:
    refused = await said(house.services.phones.send_code(await house.payer(), PHONE))
    assert (refused.code, refused.values) == ("phone_code_refused", {"reason": "no_sms"})
    assert await Message.all().count() == 0


# ---------------------------------------------------------------- what found papers and races must not open


async def test_the_number_of_a_hospital_card_is_no_factor(house: House) -> None:
    """It is printed on papers too."""
    card_only = "P10012"
    paper, payer = await a_paper(house, card_only), await a_stranger(house)
    ((_, number),) = house.his.patients[card_only].identifiers
    assert (await house.services.papers.look(paper, payer)).stage is PaperStage.WINDOW
    with pytest.raises(FactorWrong):
        await house.services.papers.prove(paper, payer, number[-4:])


async def test_nobody_pays_for_a_person_without_a_name(house: House) -> None:
    await change_settings(house, paper_code="his_asks", paper_factor="none")
    await HospitalSiteRow.filter(id=house.site_id).update(
        capabilities={"patient_by_id": False, "lock": True, "lock_query": True, "events": True}
    )
    paper, payer = await a_paper(house), await a_stranger(house)
    assert (await house.services.papers.look(paper, payer)).stage is PaperStage.WINDOW
    assert await Patient.all().count() == 0


async def test_right_numbers_cost_no_guess(house: House) -> None:
    await change_settings(house, paper_code="barcode")
    payer = await a_stranger(house)
    bills = [house.bill() for _ in range(GUESSES_OF_PAYER.most + 2)]
    for bill in bills:
        assert await house.services.papers.by_barcode(payer, bill)
    for number in range(GUESSES_OF_PAYER.most):
        with pytest.raises(NotFound):
            await house.services.papers.by_barcode(payer, f"NOSUCHBILL{number}")
    with pytest.raises(FactorLocked):
        await house.services.papers.by_barcode(payer, "NOSUCHBILL")


async def test_the_same_number_again_is_the_same_guess(house: House) -> None:
    """Typed twice, or sent twice because the answer was slow: one of an unknown number, and one of a known one."""
    await change_settings(house, paper_code="barcode")
    payer, papers, bill = await a_stranger(house), house.services.papers, house.bill()
    for _ in range(3):
        assert (await said(papers.by_barcode(payer, "NOSUCHBILL"))).code == "not_found"
    assert (await Guess.get(subject="")).count == 1
    assert len({await papers.by_barcode(payer, bill) for _ in range(3)}) == 1
    counts = {guess.subject: guess.count for guess in await Guess.all()}
    assert counts == {"": 1, "numbers": 1}
    assert (await said(papers.by_barcode(payer, "NOSUCHBILL"))).code == "not_found"  # only the last one is known
    assert (await Guess.get(subject="")).count == 2


async def test_a_withdrawal_while_a_paper_is_being_opened_closes_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the opening that has begun, and then ends it: no paper is open without consent."""
    papers, consents = house.services.papers, house.services.consents
    payer, paper = await a_stranger(house), await a_paper(house)
    outside = contextvars.copy_context()  # a task begun inside a transaction would be part of it
    withdrawals: list[asyncio.Task[None]] = []
    known = Patients.known_to_hospital

    async def while_it_opens(self: Patients, site: Any, person: Any) -> UUID:
        withdrawals.append(asyncio.create_task(consents.withdraw(payer, ConsentKind.PERSONAL), context=outside.copy()))
        await asyncio.wait(withdrawals, timeout=0.3)
        return await known(self, site, person)

    monkeypatch.setattr(Patients, "known_to_hospital", while_it_opens)
    await papers.prove(paper, payer, PHONE_TAIL)
    await asyncio.gather(*withdrawals)
    assert await PaperGrant.filter(payer_id=payer.id).count() == 1
    assert await PaperGrant.filter(payer_id=payer.id, ends_at__gt=house.clock.now()).count() == 0
    assert (await papers.look(paper, payer)).stage is PaperStage.CONSENT
