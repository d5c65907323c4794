"""What a payer has agreed to: recorded with version, time and way, withdrawn in one place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from core.errors import ConsentNeeded
from core.models import Binding, Consent, PaperGrant, Payer
from core.outside import Outside
from core.persons import lock_person, same_person
from core.tenancy import scoped
from core.transactions import atomically, rows

VERSION_LENGTH_MAX = 32
WAY_LENGTH_MAX = 16


class ConsentKind(StrEnum):
    """To what somebody agrees, each separately."""

    PERSONAL = "personal"  # that bills, which are about health, are shown and paid here
    SMS = "sms"  # that notices go to a phone


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenConsent:
    """A consent as its giver sees it."""

    kind: ConsentKind
    version: str
    way: str
    given_at: datetime


@dataclass(frozen=True, slots=True)
class Consents:
    outside: Outside

    async def give(self, payer: Payer, kind: ConsentKind, *, version: str, way: str, phone: str = "") -> UUID:
        """Record it, once per version; `phone` for SMS, where another number takes the place of the one before."""
        return await atomically(lambda: self._give(payer, kind, version, way, phone))

    async def _give(self, payer: Payer, kind: ConsentKind, version: str, way: str, phone: str) -> UUID:
        await lock_person(payer.institution_id, payer.id)
        scope, now = scoped(payer.institution_id), self.outside.clock.now()
        version = version[:VERSION_LENGTH_MAX]
        if kind is ConsentKind.SMS:
            await (
                scope.of(Consent).filter(payer_id=payer.id, kind=kind.value, withdrawn_at=None).update(withdrawn_at=now)
            )
        await rows(
            "INSERT INTO consent (id, institution_id, payer_id, kind, version, way, phone_enc, given_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
            " ON CONFLICT (payer_id, kind, version) WHERE withdrawn_at IS NULL DO NOTHING RETURNING id",
            self.outside.ids.uuid(),
            payer.institution_id,
            payer.id,
            kind.value,
            version,
            way[:WAY_LENGTH_MAX],
            self.outside.keyring.encrypt(phone, place="consent.phone") if phone else "",
            now,
        )
        row = await scope.of(Consent).get(payer_id=payer.id, kind=kind.value, version=version, withdrawn_at=None)
        return row.id

    async def required(self, payer: Payer, kind: ConsentKind, *, version: str) -> UUID:
        """Raises ConsentNeeded unless this person has agreed to this version and not withdrawn it."""
        row = (
            await scoped(payer.institution_id)
            .of(Consent)
            .filter(
                payer_id__in=await same_person(payer.institution_id, payer.id),
                kind=kind.value,
                version=version[:VERSION_LENGTH_MAX],
                withdrawn_at=None,
            )
            .order_by("id")
            .first()
        )
        if row is None:
            raise ConsentNeeded()
        return row.id

    async def given(self, payer: Payer) -> list[GivenConsent]:
        """What this person, on whatever account, has agreed to and not withdrawn."""
        persons = await same_person(payer.institution_id, payer.id)
        found = (
            await scoped(payer.institution_id)
            .of(Consent)
            .filter(payer_id__in=persons, withdrawn_at=None)
            .order_by("given_at", "id")
        )
        return [
            GivenConsent(kind=ConsentKind(row.kind), version=row.version, way=row.way, given_at=row.given_at)
            for row in found
        ]

    async def phone(self, payer: Payer) -> str:
        """The phone to which SMS to this person may go, the one agreed to last; empty without consent."""
        row = (
            await scoped(payer.institution_id)
            .of(Consent)
            .filter(
                payer_id__in=await same_person(payer.institution_id, payer.id),
                kind=ConsentKind.SMS.value,
                withdrawn_at=None,
            )
            .order_by("-given_at", "-id")
            .first()
        )
        return self.outside.keyring.decrypt(row.phone_enc, place="consent.phone") if row is not None else ""

    async def withdraw(self, payer: Payer, kind: ConsentKind) -> None:
        """From now on nothing is shown or sent under it, on any of this person's accounts; payments stay on record.

        Without consent to personal data no patient stays bound, no paper open, and no SMS is sent.
        """
        scope, now = scoped(payer.institution_id), self.outside.clock.now()
        kinds = [ConsentKind.SMS.value] if kind is ConsentKind.SMS else [each.value for each in ConsentKind]

        async def write() -> None:
            persons = await lock_person(payer.institution_id, payer.id)
            await (
                scope.of(Consent)
                .filter(payer_id__in=persons, kind__in=kinds, withdrawn_at=None)
                .update(withdrawn_at=now)
            )
            if kind is ConsentKind.PERSONAL:
                await scope.of(Binding).filter(payer_id__in=persons, removed_at=None).update(removed_at=now)
                await scope.of(PaperGrant).filter(payer_id__in=persons, ends_at__gt=now).update(ends_at=now)

        await atomically(write)
