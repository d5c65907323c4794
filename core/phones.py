"""Proof that a payer holds a phone: a code by SMS, for pages whose platform does not tell phones."""

from __future__ import annotations

import hmac
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.errors import InvalidRequest, PhoneCodeRefused
from core.institutions import Institutions
from core.messages import Messages
from core.models import Payer, PhoneCode
from core.outside import Outside
from core.ports import MessageKind
from core.tenancy import across_institutions, scoped
from core.transactions import atomically, rows

CODE_DIGITS = 6
CODE_LIFE = timedelta(minutes=5)
SPACING = timedelta(seconds=60)
SENDS_PER_DAY = 5
"""To one phone, and for one payer."""

INSTITUTION_SENDS_PER_DAY = 2_000
"""Each costs money: nobody can spend more of it by inventing phones and people."""

TRIES_MAX = 5
MAINLAND_MOBILE = re.compile(r"1[3-9][0-9]{9}")


@dataclass(frozen=True, slots=True)
class Phones:
    outside: Outside
    institutions: Institutions
    messages: Messages

    async def send_code(self, payer: Payer, phone: str) -> None:
        """Send a code to this mainland mobile. Raises InvalidRequest, PhoneCodeRefused."""
        phone = _mobile(phone)
        if not await self.messages.can_write_to_phones(payer.institution_id):
            raise PhoneCodeRefused(reason="no_sms")
        scope, now = scoped(payer.institution_id), self.outside.clock.now()
        lookup = self._lookup(phone)
        code = f"{int.from_bytes(self.outside.ids.random_bytes(8), 'big') % 10**CODE_DIGITS:0{CODE_DIGITS}d}"

        async def write() -> None:
            await rows("SELECT pg_advisory_xact_lock($1)", int(lookup[:15], 16))  # the phone has no row to lock
            await scope.of(Payer).select_for_update(no_key=True).get(id=payer.id)
            today = scope.of(PhoneCode).filter(sent_at__gt=now - timedelta(days=1))
            for sent in (
                await today.filter(payer_id=payer.id).order_by("-sent_at").limit(SENDS_PER_DAY),
                await self._sent_to(lookup, now),
            ):
                if len(sent) >= SENDS_PER_DAY:
                    raise PhoneCodeRefused(reason="too_many")
                if sent and sent[0].sent_at > now - SPACING:
                    raise PhoneCodeRefused(reason="too_soon")
            if await today.count() >= INSTITUTION_SENDS_PER_DAY:
                raise PhoneCodeRefused(reason="too_many")
            row_id = self.outside.ids.uuid()
            await PhoneCode.create(
                id=row_id,
                institution_id=payer.institution_id,
                payer_id=payer.id,
                phone_lookup=lookup,
                code_lookup=self._code(row_id.hex, code),
                sent_at=now,
            )
            await self.messages.enqueue_for(
                payer.institution_id,
                payer.id,
                MessageKind.PHONE_CODE,
                dedup_key=f"phone_code:{row_id}",
                values={"phone": phone, "code": code},
            )

        await atomically(write)

    async def _sent_to(self, lookup: str, now: datetime) -> list[PhoneCode]:
        with across_institutions("a phone is not to be flooded, by however many hospitals"):
            return (
                await PhoneCode.filter(phone_lookup=lookup, sent_at__gt=now - timedelta(days=1))
                .order_by("-sent_at")
                .limit(SENDS_PER_DAY)
            )

    async def check_code(self, payer: Payer, phone: str, code: str) -> str:
        """The phone, proven; each code once. Raises PhoneCodeRefused."""
        phone = _mobile(phone)
        scope, now = scoped(payer.institution_id), self.outside.clock.now()

        async def compare() -> str:
            row = (
                await scope.of(PhoneCode)
                .filter(payer_id=payer.id, phone_lookup=self._lookup(phone))
                .order_by("-sent_at")
                .select_for_update(no_key=True)
                .first()
            )
            if row is None or row.used_at is not None or now >= row.sent_at + CODE_LIFE or row.tries >= TRIES_MAX:
                return "lapsed"
            right = hmac.compare_digest(
                row.code_lookup, self._code(row.id.hex, unicodedata.normalize("NFKC", code).strip())
            )
            await scope.of(PhoneCode).filter(id=row.id).update(tries=row.tries + 1, used_at=now if right else None)
            return "" if right else "wrong"

        if problem := await atomically(compare):
            raise PhoneCodeRefused(reason=problem)
        return phone

    def _lookup(self, phone: str) -> str:
        return self.outside.keyring.lookup(phone, place="phone_code.phone")

    def _code(self, salt: str, code: str) -> str:
        return self.outside.keyring.lookup(f"{salt}\n{code}", place="phone_code.code")


def _mobile(phone: str) -> str:
    phone = re.sub(r"[\s-]", "", unicodedata.normalize("NFKC", phone)).removeprefix("+86")
    if not MAINLAND_MOBILE.fullmatch(phone):
        raise InvalidRequest(field="phone", problem="a mainland mobile number is needed")
    return phone
