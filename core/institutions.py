"""Institutions, their settings, and how they reach HIS, channels and chat platforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any
from uuid import UUID

from core import plain_rows
from core.errors import ConfigurationError, MethodNotAvailable, NotFound
from core.models import ChatAccountRow, HospitalSiteRow, Institution, MerchantAccountRow, PaymentMethod
from core.money import Fen
from core.outside import Outside
from core.ports import ChatAccount, ConfirmUnit, HospitalCapabilities, HospitalSite, MerchantAccount, Scene
from core.tenancy import across_institutions, scoped


class InsuredOnline(StrEnum):
    """What happens when somebody wants to pay an insured bill by phone, self-paid."""

    BLOCKED = "blocked"
    SECOND_TAP = "second_tap"


class PaperCode(StrEnum):
    """How the code on a paper prescription comes about."""

    OFF = "off"  # no paper is paid by phone
    HIS_MAKES = "his_makes"  # the HIS computes our address, offline
    HIS_ASKS = "his_asks"  # the HIS asks us for an address when it issues the bill
    BARCODE = "barcode"  # the HIS's own barcode, scanned or typed; the second factor is compulsory


class PaperFactor(StrEnum):
    """What a stranger must know to see what is on a paper."""

    LAST_FOUR = "last_four"  # of a phone or document that the HIS holds
    NONE = "none"  # the paper itself is enough, except in sensitive departments


@dataclass(frozen=True, kw_only=True, slots=True)
class InstitutionSettings:
    """What an institution decides for itself; stored as JSON, every key optional."""

    payment_seconds: int = 300  # how long a pay sheet stays valid
    expiry_margin_seconds: int = 30  # a payment ends this long before the HIS lock does
    insured_online: InsuredOnline = InsuredOnline.BLOCKED
    amount_max_fen: Fen = Fen(5_000_000)
    merge: bool = False
    merge_max: int = 20
    display_valid_days: int = 3  # wording only, where the HIS gives no date
    poll_seconds: int = 60
    paid_list_days: int = 180
    paper_code: PaperCode = PaperCode.OFF
    paper_factor: PaperFactor = PaperFactor.LAST_FOUR
    sensitive_departments: tuple[str, ...] = ()  # parts of names; nothing of their bills shows before the factor
    refund_approve_above_fen: Fen = Fen(0)  # above it a second person approves a refund that staff request
    refund_daily_cap_fen: Fen = Fen(1_000_000)  # of refunds that red receipts ask for; above it two people decide
    privacy_version: str = "1"  # of the notice; a new one is asked for at the next binding or paper

    def is_sensitive(self, department: str) -> bool:
        """Whether the bare name of this department says something of an illness."""
        return any(part in department for part in self.sensitive_departments)


def settings_from(stored: Mapping[str, Any]) -> InstitutionSettings:
    """Unknown keys are refused: a misspelt setting must not be silently without effect."""
    known = {field.name for field in fields(InstitutionSettings)}
    if unknown := set(stored) - known:
        raise ConfigurationError(f"unknown institution settings: {', '.join(sorted(unknown))}")
    values = dict(stored)
    for name, kind in (("insured_online", InsuredOnline), ("paper_code", PaperCode), ("paper_factor", PaperFactor)):
        if name in values:
            values[name] = kind(values[name])
    values["sensitive_departments"] = tuple(values.get("sensitive_departments", ()))
    return InstitutionSettings(**values)


def capabilities_from(stored: Mapping[str, Any]) -> HospitalCapabilities:
    """The answers of the questionnaire, stored as JSON."""
    values = dict(stored)
    if "confirm_unit" in values:
        values["confirm_unit"] = ConfirmUnit(values["confirm_unit"])
    return HospitalCapabilities(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """An institution as pages and messages show it."""

    id: UUID
    code: str
    name_zh: str
    name_en: str
    phone: str
    settings: InstitutionSettings


@dataclass(frozen=True, slots=True)
class Institutions:
    """Reads what operators have set up. Nothing is cached: a change holds from the next request on."""

    outside: Outside

    async def profile(self, institution_id: UUID) -> Profile:
        (row,) = await plain_rows.find(Institution, {"id": institution_id})
        return _profile(row)

    async def profile_by_code(self, code: str) -> Profile:
        """Raises NotFound."""
        found = await plain_rows.find(Institution, {"code": code})
        if not found:
            raise NotFound()
        return _profile(found[0])

    async def site(self, institution_id: UUID, site_id: UUID) -> HospitalSite:
        return self._site(await scoped(institution_id).get(HospitalSiteRow, id=site_id))

    async def sites(self, institution_id: UUID) -> list[HospitalSite]:
        """All HIS of an institution, one per branch."""
        return [self._site(row) for row in await scoped(institution_id).find(HospitalSiteRow, ("branch",))]

    async def site_by_event_token(self, token: str) -> HospitalSite:
        """Raises NotFound."""
        with across_institutions("the token in the path says whose HIS speaks"):
            found = await plain_rows.find(HospitalSiteRow, {"event_token": token})
        if not found:
            raise NotFound()
        return self._site(found[0])

    async def all_sites(self) -> list[HospitalSite]:
        """For the operator's checks."""
        with across_institutions("the operator's checks"):
            return [self._site(row) for row in await HospitalSiteRow.all().order_by("id")]

    async def merchant(self, institution_id: UUID, account_id: UUID) -> MerchantAccount:
        return self._merchant(await scoped(institution_id).get(MerchantAccountRow, id=account_id))

    async def merchant_by_notify_token(self, token: str) -> MerchantAccount:
        """Raises NotFound."""
        with across_institutions("the token in the path says whose channel speaks"):
            found = await plain_rows.find(MerchantAccountRow, {"notify_token": token})
        if not found:
            raise NotFound()
        return self._merchant(found[0])

    async def all_merchants(self) -> list[MerchantAccount]:
        """For the operator's checks."""
        with across_institutions("the operator's checks"):
            return [self._merchant(row) for row in await MerchantAccountRow.all().order_by("id")]

    async def chat_account(self, institution_id: UUID, account_id: UUID) -> ChatAccount:
        return self._chat(await scoped(institution_id).get(ChatAccountRow, id=account_id))

    async def chat_accounts(self, institution_id: UUID) -> list[ChatAccount]:
        """All accounts of an institution, the oldest first."""
        return [self._chat(row) for row in await scoped(institution_id).find(ChatAccountRow, ("id",))]

    async def chat_account_on(self, institution_id: UUID, platform: str) -> ChatAccount | None:
        """The institution's account on this platform, the oldest where there are several."""
        found = await scoped(institution_id).find(ChatAccountRow, ("id",), platform=platform)
        return self._chat(found[0]) if found else None

    async def chat_account_by_app(self, institution_id: UUID, app_id: str) -> ChatAccount:
        """Raises NotFound."""
        row = await scoped(institution_id).get_or_none(ChatAccountRow, app_id=app_id)
        if row is None:
            raise NotFound()
        return self._chat(row)

    async def chat_account_by_callback(self, token: str) -> ChatAccount:
        """Raises NotFound."""
        with across_institutions("the token in the path says whose chat it is"):
            found = await plain_rows.find(ChatAccountRow, {"callback_token": token})
        if not found:
            raise NotFound()
        return self._chat(found[0])

    async def all_chat_accounts(self) -> list[ChatAccount]:
        """For the operator's checks."""
        with across_institutions("the operator's checks"):
            return [self._chat(row) for row in await ChatAccountRow.all().order_by("id")]

    async def methods(self, institution_id: UUID, *, scene: Scene, app_id: str) -> list[PaymentMethod]:
        """The ways of paying that this scene and app may offer now, favourites first."""
        scope = scoped(institution_id)
        found = await scope.find(PaymentMethod, operator_enabled=True, institution_enabled=True, app_id=app_id)
        accounts = {row.id: row.channel for row in await scope.find(MerchantAccountRow, enabled=True)}
        offered = [
            method
            for method in found
            if scene.value in method.scenes
            and method.merchant_account_id in accounts
            and self._can(accounts[method.merchant_account_id], method, scene)
        ]
        return sorted(offered, key=lambda method: (not method.favourite, method.position, method.code))

    def _can(self, channel_name: str, method: PaymentMethod, scene: Scene) -> bool:
        """What a channel cannot do is not offered."""
        channel = self.outside.channels.get(channel_name)
        _, _, rest = method.code.partition("/")
        instrument, _, _ = rest.partition("/")
        return (
            channel is not None
            and scene in channel.capabilities.scenes
            and instrument in channel.capabilities.instruments
        )

    async def method(self, institution_id: UUID, code: str, *, scene: Scene, app_id: str) -> PaymentMethod:
        """Raises MethodNotAvailable."""
        for method in await self.methods(institution_id, scene=scene, app_id=app_id):
            if method.code == code:
                return method
        raise MethodNotAvailable()

    def _site(self, row: HospitalSiteRow) -> HospitalSite:
        return HospitalSite(
            id=row.id,
            institution_id=row.institution_id,
            branch=row.branch,
            adapter=row.adapter,
            base_url=row.base_url,
            params=self.outside.keyring.decrypt_json(row.params_enc, place="hospital_site.params"),
            capabilities=capabilities_from(row.capabilities),
            deadline_seconds=row.deadline_seconds,
            calls_max=row.calls_max,
            maintenance=tuple((start, end) for start, end in row.maintenance),
        )

    def _merchant(self, row: MerchantAccountRow) -> MerchantAccount:
        return MerchantAccount(
            id=row.id,
            institution_id=row.institution_id,
            channel=row.channel,
            merchant_no=row.merchant_no,
            params=self.outside.keyring.decrypt_json(row.params_enc, place="merchant_account.params"),
            notify_url=f"{self.outside.public_url}/n/{row.notify_token}",
        )

    def _chat(self, row: ChatAccountRow) -> ChatAccount:
        return ChatAccount(
            id=row.id,
            institution_id=row.institution_id,
            platform=row.platform,
            app_id=row.app_id,
            params=self.outside.keyring.decrypt_json(row.params_enc, place="chat_account.params"),
            templates=row.templates,
        )


def _profile(row: Institution) -> Profile:
    return Profile(
        id=row.id,
        code=row.code,
        name_zh=row.name_zh,
        name_en=row.name_en,
        phone=row.phone,
        settings=settings_from(row.settings),
    )
