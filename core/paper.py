"""Paper prescriptions: the address or barcode that is printed on them, and what it opens to whom.

A paper shows the hospital, a masked name and a date, and nothing else, to whoever scans it. Who has bound the
patient sees the bill at once; a stranger agrees to the notice and gives the last four characters of a phone or
document that the HIS holds.
"""

from __future__ import annotations

import base64
import hmac
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from uuid import UUID

from core.bills import Bills, ShownBill
from core.clock import shanghai
from core.consents import ConsentKind, Consents
from core.errors import ConsentNeeded, FactorWrong, InvalidRequest, NotFound, PatientNotBound
from core.guarded import asking_hospital
from core.guesses import Guesses, GuessLimit
from core.institutions import Institutions, PaperCode, PaperFactor, Profile
from core.models import HisPatient, PaperGrant, PaperLink, Payer, Payment, PaymentLine
from core.outside import Outside
from core.patients import PROOF_PAPER, Patients
from core.persons import lock_person, same_person
from core.ports import Bill, HospitalPatient, HospitalSite, IdentifierType
from core.scrubbing import mask_name
from core.states import OPEN_PAYMENT, PaymentStatus
from core.tenancy import across_institutions, scoped
from core.transactions import atomically, rows

HIS_MAKES_PREFIX = "h1"
MAC_PURPOSE = b"zhenfu-paper-1\n"
MAC_BYTES = 16
TOKEN_LENGTH_MAX = 512
TOKEN_BYTES = 16
BARCODE_LENGTH_MAX = 64
FACTOR_LENGTH = 4
GRANT_LIFE = timedelta(hours=24)

GUESSES_OF_ONE = GuessLimit(most=5, per=timedelta(minutes=15))
"""By one payer at one paper."""

GUESSES_OF_PAYER = GuessLimit(most=20, per=timedelta(hours=24))
"""By one payer at all papers, unknown barcodes too."""

NUMBERS_OF_PAYER = GuessLimit(most=60, per=timedelta(hours=24))
"""Barcodes that exist, of one payer: each tells a masked name."""

GUESSES_AT_PAPER = GuessLimit(most=30, per=timedelta(hours=24))
"""By all strangers at one paper. Who has bound the patient needs no factor and is not locked out by them."""

NUMBERS = "numbers"
PROOF_FACTOR = "last_four"


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """A bill as its paper names it."""

    profile: Profile
    site: HospitalSite
    his_bill_id: str
    token: str
    factor_compulsory: bool


class PaperStage(StrEnum):
    """How far a payer has come with a paper."""

    CONSENT = "consent"  # the notice comes first
    FACTOR = "factor"
    WINDOW = "window"  # nothing to compare a factor with: the cashier can help
    OPEN = "open"


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperView:
    """What a payer may see of a paper now; from `patient_id` on only when it is open."""

    paper: Paper
    stage: PaperStage
    masked_name: str
    issued_on: date | None
    asks_phone: bool = False
    asks_document: bool = False
    own_order_no: str = ""  # the payer's own payment of this bill, whatever has become of it
    patient_id: UUID | None = None
    bill: ShownBill | None = None
    others: tuple[ShownBill, ...] = ()  # unpaid bills of the same visit


@dataclass(frozen=True, kw_only=True, slots=True)
class PrintedPaper:
    """What stands on a label: no more than anybody may see who finds the paper."""

    hospital: str
    url: str
    his_bill_id: str
    masked_name: str
    issued_on: date | None


@dataclass(frozen=True, slots=True)
class Papers:
    outside: Outside
    institutions: Institutions
    patients: Patients
    bills: Bills
    consents: Consents
    guesses: Guesses

    # ------------------------------------------------------------ addresses

    async def link(self, site: HospitalSite, his_bill_id: str, *, origin: PaperCode = PaperCode.HIS_ASKS) -> str:
        """The address of a bill's paper; the same bill has the same one, and only a hash of it is stored."""
        secret = self.outside.keyring.lookup(
            "\n".join((str(site.institution_id), site.branch, his_bill_id, origin.value)), place="paper_link.token"
        )
        token = _encode(bytes.fromhex(secret)[:TOKEN_BYTES])
        await rows(
            "INSERT INTO paper_link (id, institution_id, site_id, origin, his_bill_id, lookup, created_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT ON CONSTRAINT paper_link_once DO NOTHING RETURNING id",
            self.outside.ids.uuid(),
            site.institution_id,
            site.id,
            origin.value,
            his_bill_id,
            self.outside.keyring.lookup(token, place="paper_link.lookup"),
            self.outside.clock.now(),
        )
        return token

    async def printed(self, site: HospitalSite, his_bill_id: str) -> PrintedPaper:
        """What a label of ours says, with an address of the kind that this institution uses.

        Raises NotFound where papers are off or the HIS has no such bill, HospitalUnavailable.
        """
        profile = await self.institutions.profile(site.institution_id)
        if profile.settings.paper_code is PaperCode.OFF:
            raise NotFound(reason="paper")
        if profile.settings.paper_code is PaperCode.HIS_MAKES:
            key = self.outside.hospitals[site.adapter].paper_key(site)
            token = paper_token(key, profile.code, site.branch, his_bill_id)
        else:
            token = await self.link(site, his_bill_id, origin=profile.settings.paper_code)
        bill, person = await self._ask(await self.read(token))
        return PrintedPaper(
            hospital=profile.name_zh,
            url=self.url(token),
            his_bill_id=his_bill_id,
            masked_name=mask_name(person.name),
            issued_on=_day(bill),
        )

    def url(self, token: str) -> str:
        return f"{self.outside.public_url}/p/{token}"

    async def read(self, token: str) -> Paper:
        """Raises NotFound for what is no address of ours, or of an institution that has switched papers off."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", token) or len(token) > TOKEN_LENGTH_MAX:
            raise NotFound(reason="paper")
        if token.startswith(f"{HIS_MAKES_PREFIX}."):
            return await self._made_by_hospital(token)
        with across_institutions("the token in the address says whose paper it is"):
            link = await PaperLink.get_or_none(lookup=self.outside.keyring.lookup(token, place="paper_link.lookup"))
        if link is None:
            raise NotFound(reason="paper")
        profile = await self.institutions.profile(link.institution_id)
        now_made = (profile.settings.paper_code.value, PaperCode.BARCODE.value)
        if profile.settings.paper_code is PaperCode.OFF or link.origin not in now_made:
            raise NotFound(reason="paper")
        return Paper(
            profile=profile,
            site=await self.institutions.site(link.institution_id, link.site_id),
            his_bill_id=link.his_bill_id,
            token=token,
            factor_compulsory=link.origin == PaperCode.BARCODE.value,
        )

    async def _made_by_hospital(self, token: str) -> Paper:
        """`h1.<payload>.<mac>`, see docs/connect-a-hospital.md."""
        _, _, rest = token.partition(".")
        payload, _, mac = rest.partition(".")
        try:
            said, given = _decode(payload), _decode(mac)
            code, branch, his_bill_id = said.decode().split("\n")
            profile = await self.institutions.profile_by_code(code if code.isprintable() else "")
        except (ValueError, NotFound):
            raise NotFound(reason="paper") from None
        site = next((site for site in await self.institutions.sites(profile.id) if site.branch == branch), None)
        if site is None or profile.settings.paper_code is not PaperCode.HIS_MAKES or not his_bill_id:
            raise NotFound(reason="paper")
        key = self.outside.hospitals[site.adapter].paper_key(site)
        if not key or not hmac.compare_digest(paper_mac(key, code, branch, his_bill_id), given):
            raise NotFound(reason="paper")
        return Paper(profile=profile, site=site, his_bill_id=his_bill_id, token=token, factor_compulsory=False)

    async def by_barcode(self, payer: Payer, text: str) -> str:
        """The token for the HIS's own barcode, scanned or typed. Whatever the institution's papers carry, who comes
        with a number that could be guessed must know the factor.

        Raises NotFound, FactorLocked after too many unknown ones, HospitalUnavailable.
        """
        profile = await self.institutions.profile(payer.institution_id)
        text = text.strip()
        if profile.settings.paper_code is PaperCode.OFF:
            raise NotFound(reason="paper")
        if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{BARCODE_LENGTH_MAX}}}", text):
            raise InvalidRequest(field="code", problem="letters and digits only")
        here, actor = payer.institution_id, await _actor(payer)
        tried = self.outside.keyring.lookup(f"{NUMBERS}\n{actor}\n{text}", place="guess.tried")
        in_all = await self.guesses.count(here, subject="", actor=actor, limit=GUESSES_OF_PAYER, tried=tried)
        for site in await self.institutions.sites(payer.institution_id):
            async with asking_hospital():
                bill = await self.outside.hospitals[site.adapter].get_bill(site, text)
            if bill is not None:
                if not in_all.is_repeated:
                    await self.guesses.give_back(here, subject="", actor=actor)
                await self.guesses.count(here, subject=NUMBERS, actor=actor, limit=NUMBERS_OF_PAYER, tried=tried)
                return await self.link(site, bill.his_bill_id, origin=PaperCode.BARCODE)
        raise NotFound(reason="paper")

    # ------------------------------------------------------------ looking

    async def look(self, paper: Paper, payer: Payer) -> PaperView:
        """Raises NotFound for another institution's payer or when the HIS has no such bill, HospitalUnavailable."""
        _check_at_home(paper, payer)
        bill, person = await self._ask(paper)
        own = await self._own_order(paper, payer)
        patient_id = await self._opened_to(paper, payer, bill)
        is_enough = self._needs_no_factor(paper, bill) and person.name != ""  # nobody pays for a person without a name
        if patient_id is None and is_enough and await self._has_agreed(paper, payer):
            patient_id = await self._open(paper, payer, bill, person, PROOF_PAPER)
        if patient_id is not None:
            return PaperView(
                paper=paper,
                stage=PaperStage.OPEN,
                masked_name=mask_name(person.name),
                issued_on=_day(bill),
                own_order_no=own,
                patient_id=patient_id,
                bill=self.bills.shown(bill, paper.profile),
                others=await self._others(paper, payer, patient_id, bill),
            )
        stage = PaperStage.FACTOR if await self._has_agreed(paper, payer) else PaperStage.CONSENT
        phones, documents = _phone_tails(person), _document_tails(person)
        if not phones and not documents and not is_enough:
            stage = PaperStage.WINDOW
        return PaperView(
            paper=paper,
            stage=stage,
            masked_name=mask_name(person.name),
            issued_on=_day(bill),
            asks_phone=bool(phones),
            asks_document=bool(documents),
            own_order_no=own,
        )

    async def prove(self, paper: Paper, payer: Payer, factor: str) -> UUID:
        """Open the paper to this payer by the last four characters; returns the patient.

        Raises ConsentNeeded, FactorWrong, FactorLocked, NotFound, HospitalUnavailable.
        """
        _check_at_home(paper, payer)
        await self.consents.required(payer, ConsentKind.PERSONAL, version=paper.profile.settings.privacy_version)
        factor = re.sub(r"\s", "", unicodedata.normalize("NFKC", factor)).upper()  # Chinese keyboards write １２３４
        if len(factor) != FACTOR_LENGTH or not factor.isascii() or not factor.isalnum():
            raise InvalidRequest(field="factor", problem="four letters or digits are needed")
        subject, actor, here = self._subject(paper), await _actor(payer), payer.institution_id
        await self.guesses.check(here, subject=subject, actor=actor, limit=GUESSES_OF_ONE)
        bill, person = await self._ask(paper)
        opened = await self._opened_to(paper, payer, bill)
        if opened is not None:
            return opened
        tried = self.outside.keyring.lookup(f"{subject}\n{actor}\n{factor}", place="guess.tried")
        own = await self.guesses.count(here, subject=subject, actor=actor, limit=GUESSES_OF_ONE, tried=tried)
        in_all = await self.guesses.count(here, subject="", actor=actor, limit=GUESSES_OF_PAYER, tried=tried)
        by_all = await self.guesses.count(here, subject=subject, actor="", limit=GUESSES_AT_PAPER, tried=tried)
        right = [
            hmac.compare_digest(tail.encode(), factor.encode())
            for tail in (*_phone_tails(person), *_document_tails(person))
        ]
        if not any(right):
            raise FactorWrong(left=own.left)
        await self.guesses.forget(here, subject=subject, actor=actor)
        if not in_all.is_repeated:
            await self.guesses.give_back(here, subject="", actor=actor)
        if not by_all.is_repeated:
            await self.guesses.give_back(here, subject=subject, actor="")
        return await self._open(paper, payer, bill, person, PROOF_FACTOR)

    async def _ask(self, paper: Paper) -> tuple[Bill, HospitalPatient]:
        hospital = self.outside.hospitals[paper.site.adapter]
        async with asking_hospital():
            bill = await hospital.get_bill(paper.site, paper.his_bill_id)
        if bill is None:
            raise NotFound(reason="paper")
        if not paper.site.capabilities.patient_by_id:
            return bill, HospitalPatient(his_patient_id=bill.his_patient_id, name="")
        async with asking_hospital():
            person = await hospital.get_patient(paper.site, bill.his_patient_id)
        return bill, person or HospitalPatient(his_patient_id=bill.his_patient_id, name="")

    async def _opened_to(self, paper: Paper, payer: Payer, bill: Bill) -> UUID | None:
        """The patient, if this payer has bound him or opened this paper, or another of the visit, before."""
        row = (
            await scoped(payer.institution_id)
            .of(HisPatient)
            .get_or_none(branch=paper.site.branch, his_patient_id=bill.his_patient_id)
        )
        if row is None:
            return None
        try:
            access = await self.patients.access(payer.institution_id, payer.id, row.patient_id)
        except PatientNotBound:
            return None
        return row.patient_id if access.covers(paper.site, bill) else None

    async def _open(self, paper: Paper, payer: Payer, bill: Bill, person: HospitalPatient, proof: str) -> UUID:
        now = self.outside.clock.now()

        async def write() -> UUID:
            await lock_person(payer.institution_id, payer.id)  # a withdrawal comes before this or after it
            consent_id = await self.consents.required(
                payer, ConsentKind.PERSONAL, version=paper.profile.settings.privacy_version
            )
            patient_id = await self.patients.known_to_hospital(paper.site, person)
            await PaperGrant.create(
                id=self.outside.ids.uuid(),
                institution_id=payer.institution_id,
                payer_id=payer.id,
                patient_id=patient_id,
                site_id=paper.site.id,
                his_patient_id=bill.his_patient_id,
                his_bill_id=bill.his_bill_id,
                visit_no=bill.visit_no[:64],
                proof=proof,
                consent_id=consent_id,
                granted_at=now,
                ends_at=now + GRANT_LIFE,
            )
            return patient_id

        return await atomically(write)

    def _needs_no_factor(self, paper: Paper, bill: Bill) -> bool:
        settings = paper.profile.settings
        is_enough = settings.paper_factor is PaperFactor.NONE and not paper.factor_compulsory
        return is_enough and not settings.is_sensitive(bill.department)

    async def _has_agreed(self, paper: Paper, payer: Payer) -> bool:
        try:
            await self.consents.required(payer, ConsentKind.PERSONAL, version=paper.profile.settings.privacy_version)
        except ConsentNeeded:
            return False
        return True

    async def _others(self, paper: Paper, payer: Payer, patient_id: UUID, bill: Bill) -> tuple[ShownBill, ...]:
        """The other unpaid bills of the visit that are open to this payer, the newest first."""
        if not bill.visit_no:
            return ()
        access = await self.patients.access(payer.institution_id, payer.id, patient_id)
        async with asking_hospital():
            found = await self.outside.hospitals[paper.site.adapter].list_bills(paper.site, bill.his_patient_id)
        same = [
            other
            for other in found
            if other.visit_no == bill.visit_no
            and other.his_bill_id != bill.his_bill_id
            and access.covers(paper.site, other)
        ]
        same.sort(key=lambda other: (-(other.issued_at.timestamp() if other.issued_at else 0), other.his_bill_id))
        return tuple(self.bills.shown(other, paper.profile) for other in same)

    async def _own_order(self, paper: Paper, payer: Payer) -> str:
        """The payer's own payment of this bill: one that took money before one that is open."""
        scope = scoped(payer.institution_id)
        lines = await scope.of(PaymentLine).filter(branch=paper.site.branch, his_bill_id=paper.his_bill_id)
        payments = (
            await scope.of(Payment)
            .filter(
                id__in=[line.payment_id for line in lines],
                payer_id=payer.id,
                status__in=[PaymentStatus.PAID, *OPEN_PAYMENT],
            )
            .order_by("-created_at")
            if lines
            else []
        )
        payments.sort(key=lambda payment: payment.status is not PaymentStatus.PAID)
        return payments[0].order_no if payments else ""

    def _subject(self, paper: Paper) -> str:
        """What guesses at this paper are counted under, however its address was made."""
        return self.outside.keyring.lookup(f"{paper.site.id}\n{paper.his_bill_id}", place="guess.subject")


async def _actor(payer: Payer) -> str:
    """A person guesses once, on however many accounts."""
    return str(min(await same_person(payer.institution_id, payer.id)))


def _check_at_home(paper: Paper, payer: Payer) -> None:
    """To another institution's payer there is no such paper."""
    if payer.institution_id != paper.profile.id:
        raise NotFound(reason="paper")


def paper_mac(key: bytes, code: str, branch: str, his_bill_id: str) -> bytes:
    """The first 16 bytes of HMAC-SHA256 over "zhenfu-paper-1", institution, branch and bill, a line each."""
    return hmac.digest(key, MAC_PURPOSE + "\n".join((code, branch, his_bill_id)).encode(), "sha256")[:MAC_BYTES]


def paper_token(key: bytes, code: str, branch: str, his_bill_id: str) -> str:
    """The token that a HIS makes offline."""
    payload = _encode("\n".join((code, branch, his_bill_id)).encode())
    return f"{HIS_MAKES_PREFIX}.{payload}.{_encode(paper_mac(key, code, branch, his_bill_id))}"


def _phone_tails(person: HospitalPatient) -> Sequence[str]:
    return _tails(person.phones)


def _document_tails(person: HospitalPatient) -> Sequence[str]:
    """A hospital card is none: its number is printed beside the code."""
    shown = [each for each in person.identifiers if each.type is not IdentifierType.HOSPITAL_CARD]
    return _tails([identifier.value for identifier in shown])


def _tails(values: Sequence[str]) -> Sequence[str]:
    """The last four letters or digits of each; a shorter one, or one made up (0000), proves nothing."""
    plain = [re.sub(r"[^0-9A-Z]", "", value.upper()) for value in values]
    tails = [value[-FACTOR_LENGTH:] for value in plain if len(value) > FACTOR_LENGTH]
    return [tail for tail in tails if len(set(tail)) > 1]


def _day(bill: Bill) -> date | None:
    return shanghai(bill.issued_at).date() if bill.issued_at is not None else None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """Raises ValueError for anything but the one way of writing these bytes."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(data) != text:
        raise ValueError("not base64url")
    return data
