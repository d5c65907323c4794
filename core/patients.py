"""Who pays and for whom: chat identities, patients of the HIS, and the bindings between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from tortoise.exceptions import IntegrityError
from tortoise.expressions import Q

from core.clock import shanghai
from core.consents import ConsentKind, Consents
from core.errors import BindingRefused, InvalidRequest, NotFound, NotReached, OutcomeUnknown, PatientNotBound, Refused
from core.guarded import asking_hospital
from core.institutions import Institutions, InstitutionSettings
from core.models import Binding, HisPatient, PaperGrant, Patient, PatientIdentifier, Payer
from core.outside import Outside
from core.persons import lock_person, same_person
from core.ports import Bill, ChatAccount, ChatIdentity, HospitalPatient, HospitalSite, Identifier, IdentifierType
from core.scrubbing import mask_name
from core.tenancy import scoped
from core.transactions import atomically, rows, transaction, violated

PATIENTS_PER_PAYER_MAX = 5
NAME_LENGTH_MAX = 64
IDENTIFIER_LENGTH_MAX = 64
JOIN_EVERY = timedelta(days=1)
MAINLAND_DIGITS_WITH_COUNTRY = 13
PROOF_PHONE = "phone_held_by_his"
PROOF_PAPER = "paper"
"""Of a grant: the paper was enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundPatient:
    """A patient as the payer's list shows it."""

    patient_id: UUID
    masked_name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundPayer:
    """Somebody who has bound a patient, as this patient's payers see each other: without a name."""

    binding_id: UUID
    is_caller: bool
    platform: str
    bound_on: date  # in Shanghai


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What a payer may see of a patient: everything when bound, else what papers have opened to him."""

    is_bound: bool
    grants: tuple[PaperGrant, ...] = ()
    settings: InstitutionSettings = field(default_factory=InstitutionSettings)

    def covers(self, site: HospitalSite, bill: Bill) -> bool:
        """A paper opens its own bill and the other bills of its visit; without a factor, no sensitive one."""
        is_sensitive = self.settings.is_sensitive(bill.department)
        return self.is_bound or any(
            (grant.site_id, grant.his_patient_id) == (site.id, bill.his_patient_id)
            and not (is_sensitive and grant.proof == PROOF_PAPER)
            and (grant.his_bill_id == bill.his_bill_id or (grant.visit_no != "" and grant.visit_no == bill.visit_no))
            for grant in self.grants
        )


@dataclass(frozen=True, slots=True)
class Patients:
    outside: Outside
    institutions: Institutions
    consents: Consents

    async def payer_for(self, account: ChatAccount, identity: ChatIdentity, *, language: str = "") -> Payer:
        """The row of this chat identity, made on first sight. Without `language` the one that is known stays."""
        keyring = self.outside.keyring
        lookup = keyring.lookup(identity.open_id, place="payer.open_id")
        union = keyring.lookup(identity.union_id, place="payer.union_id") if identity.union_id else ""
        scope = scoped(account.institution_id)
        payer = await scope.get_or_none(Payer, chat_account_id=account.id, open_id_lookup=lookup)
        if payer is None:
            try:
                async with transaction():
                    return await Payer.create(
                        id=self.outside.ids.uuid(),
                        institution_id=account.institution_id,
                        chat_account_id=account.id,
                        open_id_enc=keyring.encrypt(identity.open_id, place="payer.open_id"),
                        open_id_lookup=lookup,
                        union_lookup=union,
                        language=language or "zh",
                        created_at=self.outside.clock.now(),
                    )
            except IntegrityError as error:
                if violated(error) != "payer_once":
                    raise
                payer = await scope.get(Payer, chat_account_id=account.id, open_id_lookup=lookup)
        language, union = language or payer.language, union or payer.union_lookup
        if (payer.language, payer.union_lookup) != (language, union):
            payer.language, payer.union_lookup = language, union
            await scope.of(Payer).filter(id=payer.id).update(language=payer.language, union_lookup=payer.union_lookup)
        return payer

    async def joined(self, payer: Payer) -> Payer:
        """The payer, with the platform asked who he is on the hospital's other accounts unless that is known.

        Asked at most once a day; when the platform does not say, he stays a person of his own.
        """
        if payer.union_lookup or not await self.outside.limiter.allow(f"union:{payer.id}", limit=1, per=JOIN_EVERY):
            return payer
        account = await self.institutions.chat_account(payer.institution_id, payer.chat_account_id)
        open_id = self.outside.keyring.decrypt(payer.open_id_enc, place="payer.open_id")
        try:
            union_id = await self.outside.platforms[account.platform].union_id(account, open_id)
        except (NotReached, OutcomeUnknown, Refused):
            return payer
        return await self.payer_for(account, ChatIdentity(open_id=open_id, union_id=union_id))

    async def set_reachable(self, payer: Payer, reachable: bool, *, at: datetime) -> None:
        """He follows the account and can be written to, or no longer; `at` is when the platform saw it.

        What happened before the last that we know is ignored: platforms repeat, and pushes overtake each other.
        """
        at = min(at, self.outside.clock.now())  # a moment to come would shut out everything before it
        await (
            scoped(payer.institution_id)
            .of(Payer)
            .filter(Q(reachable_at=None) | Q(reachable_at__lte=at), id=payer.id)
            .update(reachable=reachable, reachable_at=at)
        )

    async def bind(
        self,
        payer: Payer,
        *,
        name: str,
        identifier: Identifier,
        phone: str,
        consent_version: str = "",
        way: str = "miniprogram",
    ) -> BoundPatient:
        """Bind the person whom the HIS knows by this document and name, and whose phone the HIS holds.

        `phone` has been proven to be the payer's; `consent_version` names the notice that the payer agreed to,
        and `way` where. Raises BindingRefused or HospitalUnavailable. A wrong name and an unknown document are
        told alike, so that nobody learns whether a document is registered.
        """
        name, value = name.strip(), normal_identifier(identifier)
        if not 1 <= len(name) <= NAME_LENGTH_MAX:
            raise InvalidRequest(field="name", problem=f"1 to {NAME_LENGTH_MAX} characters are needed")
        known: list[tuple[HospitalSite, HospitalPatient]] = []
        for site in await self.institutions.sites(payer.institution_id):
            async with asking_hospital():
                found = await self.outside.hospitals[site.adapter].find_patients(
                    site, Identifier(type=identifier.type, value=value)
                )
            known += [(site, person) for person in found if _same_name(person.name, name)]
        if not known:
            raise BindingRefused(reason="not_found")
        mine = [(site, person) for site, person in known if phone in {digits(number) for number in person.phones}]
        if not mine:
            raise BindingRefused(reason="phone_differs")
        found_by = Identifier(type=identifier.type, value=value)
        return await atomically(lambda: self._bind(payer, name, found_by, mine, consent_version, way))

    async def _bind(
        self,
        payer: Payer,
        name: str,
        identifier: Identifier,
        known: Sequence[tuple[HospitalSite, HospitalPatient]],
        consent_version: str,
        way: str,
    ) -> BoundPatient:
        scope = scoped(payer.institution_id)
        persons = await lock_person(payer.institution_id, payer.id)
        patient_id = await self._patient(payer.institution_id, name, identifier, known)
        bound = {row.patient_id for row in await scope.of(Binding).filter(payer_id__in=persons, removed_at=None)}
        if patient_id in bound:
            raise BindingRefused(reason="already_bound")
        if len(bound) >= PATIENTS_PER_PAYER_MAX:
            raise BindingRefused(reason="too_many")
        consent_id = None
        if consent_version:
            consent_id = await self.consents.give(payer, ConsentKind.PERSONAL, version=consent_version, way=way)
        await Binding.create(
            id=self.outside.ids.uuid(),
            institution_id=payer.institution_id,
            payer_id=payer.id,
            patient_id=patient_id,
            proof=PROOF_PHONE,
            consent_id=consent_id,
            bound_at=self.outside.clock.now(),
        )
        return BoundPatient(patient_id=patient_id, masked_name=mask_name(name))

    async def _patient(
        self,
        institution_id: UUID,
        name: str,
        identifier: Identifier,
        known: Sequence[tuple[HospitalSite, HospitalPatient]],
    ) -> UUID:
        """The person's row: the one that the HIS's id leads to, else one with this document and this very name.

        A document alone leads to nobody: an infant may be filed under the mother's.
        """
        scope = scoped(institution_id)
        patient_id: UUID | None = None
        for site, person in known:
            row = await scope.get_or_none(HisPatient, branch=site.branch, his_patient_id=person.his_patient_id)
            if row is not None:
                patient_id = row.patient_id
                break
        lookup = self.outside.keyring.lookup(identifier.value, place=f"identifier.{identifier.type.value}")
        stored = await scope.of(PatientIdentifier).filter(type=identifier.type.value, lookup=lookup).order_by("id")
        if patient_id is None:
            for entry in stored:
                patient = await scope.get(Patient, id=entry.patient_id)
                if _same_name(self.outside.keyring.decrypt(patient.name_enc, place="patient.name"), name):
                    patient_id = entry.patient_id
                    break
        if patient_id is None:
            patient_id = await self._new_patient(institution_id, name)
        if patient_id not in {entry.patient_id for entry in stored}:
            await PatientIdentifier.create(
                id=self.outside.ids.uuid(),
                institution_id=institution_id,
                patient_id=patient_id,
                type=identifier.type.value,
                value_enc=self.outside.keyring.encrypt(identifier.value, place="patient_identifier.value"),
                lookup=lookup,
            )
        for site, person in known:
            await self._known_as(site, person.his_patient_id, patient_id)
        return patient_id

    async def _new_patient(self, institution_id: UUID, name: str) -> UUID:
        patient = await Patient.create(
            id=self.outside.ids.uuid(),
            institution_id=institution_id,
            name_enc=self.outside.keyring.encrypt(name, place="patient.name"),
            created_at=self.outside.clock.now(),
        )
        return patient.id

    async def _known_as(self, site: HospitalSite, his_patient_id: str, patient_id: UUID) -> None:
        await rows(
            "INSERT INTO his_patient (id, institution_id, patient_id, branch, his_patient_id)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT ON CONSTRAINT his_patient_once DO NOTHING RETURNING id",
            self.outside.ids.uuid(),
            site.institution_id,
            patient_id,
            site.branch,
            his_patient_id,
        )

    async def known_to_hospital(self, site: HospitalSite, person: HospitalPatient) -> UUID:
        """The row of a person whom the HIS has told us of, made on first sight; in the caller's transaction."""
        scope = scoped(site.institution_id)
        row = await scope.get_or_none(HisPatient, branch=site.branch, his_patient_id=person.his_patient_id)
        if row is None:
            await self._known_as(site, person.his_patient_id, await self._new_patient(site.institution_id, person.name))
            row = await scope.get(HisPatient, branch=site.branch, his_patient_id=person.his_patient_id)
        return row.patient_id

    async def access(self, institution_id: UUID, payer_id: UUID, patient_id: UUID) -> Access:
        """Raises PatientNotBound for a payer to whom nothing of this patient is open."""
        try:
            await self.check_bound(institution_id, payer_id, patient_id)
        except PatientNotBound:
            grants = (
                await scoped(institution_id)
                .of(PaperGrant)
                .filter(payer_id=payer_id, patient_id=patient_id, ends_at__gt=self.outside.clock.now())
            )
            if not grants:
                raise
            profile = await self.institutions.profile(institution_id)
            return Access(is_bound=False, grants=tuple(grants), settings=profile.settings)
        return Access(is_bound=True)

    async def bound(self, payer: Payer) -> list[BoundPatient]:
        """Whom this payer, on whatever account, may see and pay for."""
        scope = scoped(payer.institution_id)
        persons = await same_person(payer.institution_id, payer.id)
        found = await scope.of(Binding).filter(payer_id__in=persons, removed_at=None).order_by("bound_at", "id")
        bindings = list({binding.patient_id: binding for binding in reversed(found)}.values())[::-1]
        patients = {row.id: row for row in await scope.of(Patient).filter(id__in=[b.patient_id for b in bindings])}
        return [
            BoundPatient(
                patient_id=binding.patient_id,
                masked_name=mask_name(
                    self.outside.keyring.decrypt(patients[binding.patient_id].name_enc, place="patient.name")
                ),
            )
            for binding in bindings
        ]

    async def unbind(self, payer: Payer, patient_id: UUID) -> None:
        """Raises NotFound when there is no such binding."""
        gone = await (
            scoped(payer.institution_id)
            .of(Binding)
            .filter(
                payer_id__in=await same_person(payer.institution_id, payer.id), patient_id=patient_id, removed_at=None
            )
            .update(removed_at=self.outside.clock.now())
        )
        if not gone:
            raise NotFound()

    async def payers_bound(self, payer: Payer, patient_id: UUID) -> list[BoundPayer]:
        """Everybody who may see and pay for this patient. Raises PatientNotBound unless the payer may himself."""
        await self.check_bound(payer.institution_id, payer.id, patient_id)
        scope = scoped(payer.institution_id)
        persons = await same_person(payer.institution_id, payer.id)
        bindings = await scope.of(Binding).filter(patient_id=patient_id, removed_at=None).order_by("bound_at", "id")
        payers = {row.id: row for row in await scope.of(Payer).filter(id__in=[row.payer_id for row in bindings])}
        platforms = {
            account_id: (await self.institutions.chat_account(payer.institution_id, account_id)).platform
            for account_id in {row.chat_account_id for row in payers.values()}
        }
        return [
            BoundPayer(
                binding_id=binding.id,
                is_caller=binding.payer_id in persons,
                platform=platforms[payers[binding.payer_id].chat_account_id],
                bound_on=shanghai(binding.bound_at).date(),
            )
            for binding in bindings
        ]

    async def remove_binding(self, payer: Payer, patient_id: UUID, binding_id: UUID) -> None:
        """Take the patient from whoever holds this binding, the payer himself too.

        Raises PatientNotBound unless the payer has bound the patient, NotFound when the patient has no such binding.
        """
        await self.check_bound(payer.institution_id, payer.id, patient_id)
        gone = await (
            scoped(payer.institution_id)
            .of(Binding)
            .filter(id=binding_id, patient_id=patient_id, removed_at=None)
            .update(removed_at=self.outside.clock.now())
        )
        if not gone:
            raise NotFound()

    async def check_bound(self, institution_id: UUID, payer_id: UUID, patient_id: UUID) -> None:
        """Raises PatientNotBound."""
        persons = await same_person(institution_id, payer_id)
        if not await scoped(institution_id).find(Binding, payer_id=persons, patient_id=patient_id, removed_at=None):
            raise PatientNotBound()

    async def his_ids(self, institution_id: UUID, patient_id: UUID) -> list[HisPatient]:
        return await scoped(institution_id).find(HisPatient, ("branch", "id"), patient_id=patient_id)

    async def payers_of(self, institution_id: UUID, branch: str, his_patient_id: str) -> list[tuple[UUID, UUID]]:
        """(payer, patient) for everybody who has bound the person whom the HIS knows by this id."""
        row = await scoped(institution_id).get_or_none(HisPatient, branch=branch, his_patient_id=his_patient_id)
        if row is None:
            return []
        bindings = await (
            scoped(institution_id)
            .of(Binding)
            .filter(patient_id=row.patient_id, removed_at=None)
            .order_by("bound_at", "id")
        )
        return [(binding.payer_id, binding.patient_id) for binding in bindings]

    async def masked_name(self, institution_id: UUID, patient_id: UUID) -> str:
        patient = await scoped(institution_id).get(Patient, id=patient_id)
        return mask_name(self.outside.keyring.decrypt(patient.name_enc, place="patient.name"))


def digits(phone: str) -> str:
    """A phone as digits, whatever it was written with: a mainland one without 86, a foreign one with its country."""
    only = re.sub(r"\D", "", phone)
    return only[2:] if len(only) == MAINLAND_DIGITS_WITH_COUNTRY and only.startswith("86") else only


def normal_identifier(identifier: Identifier) -> str:
    """The number as the HIS expects it. Raises InvalidRequest."""
    value = re.sub(r"[\s\-·]", "", identifier.value).upper()
    if not 1 <= len(value) <= IDENTIFIER_LENGTH_MAX or not value.isascii() or not value.isalnum():
        raise InvalidRequest(field="identifier", problem="letters and digits only")
    if identifier.type is IdentifierType.ID_CARD and not valid_id_card(value):
        raise InvalidRequest(field="identifier", problem="this is not a valid ID card number")
    return value


def valid_id_card(value: str) -> bool:
    """Eighteen characters with the right check digit (GB 11643-1999)."""
    if not re.fullmatch(r"\d{17}[\dX]", value):
        return False
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return (
        "10X98765432"[sum(int(digit) * weight for digit, weight in zip(value, weights, strict=False)) % 11] == value[17]
    )


def _same_name(left: str, right: str) -> bool:
    return re.sub(r"[\s·]", "", left).casefold() == re.sub(r"[\s·]", "", right).casefold()
