"""Brings the database to what a setup file says, in one transaction; running it again changes only what differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tortoise.models import Model

from bot.wechat.params import check_forward_url
from core.ids import Ids
from core.institutions import PaperCode
from core.keyring import Keyring
from core.models import ChatAccountRow, HospitalSiteRow, Institution, MerchantAccountRow, PaymentMethod
from core.tenancy import scoped
from core.transactions import atomically
from runtime.setup import Setup
from runtime.setup_file import InstitutionWanted, refuse

UNCHANGED = "unchanged"


async def apply(wanted: InstitutionWanted, *, name: str, ids: Ids, keyring: Keyring, public_url: str) -> list[str]:
    """What was done, with the addresses to hand out. Raises ConfigurationError; then nothing is written."""

    async def work() -> list[str]:
        applying = _Applying(wanted, Setup(ids, keyring), keyring, public_url)
        return await applying.all(name)

    return await atomically(work)


@dataclass(slots=True)
class _Applying:
    wanted: InstitutionWanted
    setup: Setup
    keyring: Keyring
    public_url: str
    lines: list[str] = field(default_factory=list)

    async def all(self, name: str) -> list[str]:
        row = await Institution.select_for_update().get_or_none(code=self.wanted.code)
        if row is not None:
            refuse(await self._forgotten(row.id), name)
        institution_id = await self._institution(row)
        await self._sites(institution_id)
        accounts = await self._merchants(institution_id)
        await self._chats(institution_id)
        await self._methods(institution_id, accounts)
        return self.lines

    async def _forgotten(self, institution_id: UUID) -> list[str]:
        """Accounts with history are never taken away or given another number; the file must go on naming them."""
        scope = scoped(institution_id)
        branches = {site.branch for site in self.wanted.sites}
        merchants = {(each.channel, each.merchant_no) for each in self.wanted.merchants}
        chats = {(chat.platform, chat.app_id) for chat in self.wanted.chats}
        return [
            *(
                f"hospital: branch {row.branch!r} is in the database and not in the file: a branch is never renamed or"
                " removed, its bills are known by it"
                for row in await scope.of(HospitalSiteRow).order_by("branch")
                if row.branch not in branches
            ),
            *(
                f"merchant: {row.channel} {row.merchant_no} is in the database and not in the file: a merchant number"
                " is never changed, open orders stand at it; keep it and add the new one beside it"
                for row in await scope.of(MerchantAccountRow).order_by("channel", "merchant_no")
                if (row.channel, row.merchant_no) not in merchants
            ),
            *(
                f"chat: {row.platform} {row.app_id} is in the database and not in the file: patients have signed in"
                " through it; keep it and add the new one beside it"
                for row in await scope.of(ChatAccountRow).order_by("platform", "app_id")
                if (row.platform, row.app_id) not in chats
            ),
        ]

    async def _institution(self, row: Institution | None) -> UUID:
        wanted = self.wanted
        name = f"institution {wanted.code}"
        if row is None:
            self._say(name, "created")
            return await self.setup.institution(
                code=wanted.code,
                name_zh=wanted.name_zh,
                name_en=wanted.name_en,
                phone=wanted.phone,
                settings=wanted.settings,
            )
        await self._bring(
            name,
            row,
            {"name_zh": wanted.name_zh, "name_en": wanted.name_en, "phone": wanted.phone,
             "settings": dict(wanted.settings)},
        )  # fmt: skip
        return row.id

    async def _sites(self, institution_id: UUID) -> None:
        for site in self.wanted.sites:
            name = f"hospital {site.branch}".rstrip()
            row = await scoped(institution_id).of(HospitalSiteRow).get_or_none(branch=site.branch)
            if row is None:
                row = await self.setup.hospital_site(
                    institution_id,
                    branch=site.branch,
                    adapter=site.adapter,
                    base_url=site.base_url,
                    params=site.params,
                    capabilities=site.capabilities,
                    deadline_seconds=site.deadline_seconds,
                    calls_max=site.calls_max,
                    maintenance=site.maintenance,
                )
                self._say(name, "created")
            else:
                values = {
                    "base_url": site.base_url,
                    "capabilities": dict(site.capabilities),
                    "deadline_seconds": site.deadline_seconds,
                    "calls_max": site.calls_max,
                    "maintenance": [list(window) for window in site.maintenance],
                }
                await self._bring(name, row, values, params=site.params, place="hospital_site.params")
            self._hand_out("event URL, for the HIS vendor", f"{self.public_url}/his/v1/events/{row.event_token}")
            if self.wanted.settings.get("paper_code") == PaperCode.HIS_ASKS:
                url = f"{self.public_url}/his/v1/bill-links/{row.event_token}"
                self._hand_out("bill link URL, for the HIS vendor", url)

    async def _merchants(self, institution_id: UUID) -> Mapping[tuple[str, str], UUID]:
        accounts = {}
        for merchant in self.wanted.merchants:
            name = f"merchant {merchant.channel} {merchant.merchant_no}"
            row = (
                await scoped(institution_id)
                .of(MerchantAccountRow)
                .get_or_none(channel=merchant.channel, merchant_no=merchant.merchant_no)
            )
            if row is None:
                row = await self.setup.merchant_account(
                    institution_id,
                    channel=merchant.channel,
                    merchant_no=merchant.merchant_no,
                    params=merchant.params,
                )
                self._say(name, "created")
            else:
                await self._bring(name, row, {}, params=merchant.params, place="merchant_account.params")
            self._hand_out("notify URL", f"{self.public_url}/n/{row.notify_token}")
            accounts[merchant.channel, merchant.merchant_no] = row.id
        return accounts

    async def _chats(self, institution_id: UUID) -> None:
        for chat in self.wanted.chats:
            name = f"chat {chat.platform} {chat.app_id}"
            check_forward_url(chat.params, self.public_url, owner=name)
            row = (
                await scoped(institution_id).of(ChatAccountRow).get_or_none(platform=chat.platform, app_id=chat.app_id)
            )
            if row is None:
                row = await self.setup.chat_account(
                    institution_id,
                    platform=chat.platform,
                    app_id=chat.app_id,
                    params=chat.params,
                    templates=chat.templates,
                )
                self._say(name, "created")
            else:
                values = {"templates": dict(chat.templates)}
                await self._bring(name, row, values, params=chat.params, place="chat_account.params")
            if chat.platform == "wechat_service" or chat.params.get("push_token", "").strip():
                self._hand_out("server URL, for the account's console", f"{self.public_url}/wx/{row.callback_token}")

    async def _methods(self, institution_id: UUID, accounts: Mapping[tuple[str, str], UUID]) -> None:
        there = {
            (row.app_id, row.code): row
            for row in await scoped(institution_id).of(PaymentMethod).order_by("app_id", "code")
        }
        for method in self.wanted.methods:
            name = f"method {method.code} {method.app_id}"
            account_id = accounts[method.channel, method.merchant_no]
            row = there.pop((method.app_id, method.code), None)
            if row is None:
                row = await self.setup.payment_method(
                    institution_id,
                    merchant_account_id=account_id,
                    code=method.code,
                    app_id=method.app_id,
                    scenes=method.scenes,
                    position=method.position,
                    on=method.on,
                )
                self._say(name, "created" if method.on else "created, off")
                continue
            values = {
                "merchant_account_id": account_id,
                "scenes": [scene.value for scene in method.scenes],
                "position": method.position,
                "operator_enabled": method.on,
            }
            await self._bring(name, row, values)
        for (app_id, code), row in there.items():
            await self._bring(f"method {code} {app_id}, not in the file", row, {"operator_enabled": False})

    # --- rows ---

    async def _bring(
        self,
        name: str,
        row: Model,
        values: Mapping[str, Any],
        *,
        params: Mapping[str, str] | None = None,
        place: str = "",
    ) -> None:
        """Write what differs. Params are compared in the clear, and written anew when their key is an old one."""
        changed = [column for column, value in values.items() if getattr(row, column) != value]
        for column in changed:
            setattr(row, column, values[column])
        columns = list(changed)
        if params is not None:
            stored: str = row.params_enc  # type: ignore[attr-defined]
            differs = self.keyring.decrypt_json(stored, place=place) != dict(params)
            if differs or self.keyring.is_stale(stored):
                row.params_enc = self.keyring.encrypt_json(dict(params), place=place)
                columns.append("params_enc")
                changed.append("params" if differs else "encryption key")
        if columns:
            await row.save(update_fields=columns)
        self._say(name, f"changed: {', '.join(changed)}" if changed else UNCHANGED)

    def _say(self, name: str, what: str) -> None:
        self.lines.append(f"{name}: {what}")

    def _hand_out(self, what: str, url: str) -> None:
        self.lines.append(f"  {what}: {url}")
