"""Setting up a deployment, an institution and its accounts in the database; operators' work, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from core.ids import Ids
from core.keyring import Keyring
from core.models import ChatAccountRow, HospitalSiteRow, Institution, MerchantAccountRow, PaymentMethod
from core.ports import Scene
from runtime.bootstrap import check_whose
from runtime.database import credentials_of

CALLBACK_TOKEN_LENGTH = 40


async def check_before_migration(owner_url: str, deployment_id: str, keyring: Keyring) -> None:
    """Raises ConfigurationError when a database that has a deployment already is not ours; nothing is written."""
    connection = await asyncpg.connect(**credentials_of(owner_url))
    try:
        if await connection.fetchval("SELECT to_regclass('public.deployment')") is None:
            return
        row = await connection.fetchrow("SELECT deployment_id, canary_enc FROM deployment WHERE name = 'this'")
    finally:
        await connection.close()
    if row is not None:
        check_whose(row["deployment_id"], row["canary_enc"], deployment_id, keyring)


async def mark_deployment(owner_url: str, deployment_id: str, keyring: Keyring) -> None:
    """Write the one row that says whose database this is, once; a database that has one keeps it."""
    connection = await asyncpg.connect(**credentials_of(owner_url))
    try:
        await connection.execute(
            "INSERT INTO deployment (name, deployment_id, canary_enc) VALUES ('this', $1, $2) ON CONFLICT DO NOTHING",
            deployment_id,
            keyring.canary(),
        )
    finally:
        await connection.close()


class Setup:
    """Makes institutions and what belongs to them, within an open database context."""

    def __init__(self, ids: Ids, keyring: Keyring) -> None:
        self._ids = ids
        self._keyring = keyring

    async def institution(
        self, *, code: str, name_zh: str, name_en: str = "", phone: str = "", settings: Mapping[str, Any] | None = None
    ) -> UUID:
        row = await Institution.create(
            id=self._ids.uuid(),
            code=code,
            name_zh=name_zh,
            name_en=name_en,
            phone=phone,
            settings=dict(settings or {}),
            created_at=self._ids.clock.now(),
        )
        return row.id

    async def hospital_site(
        self,
        institution_id: UUID,
        *,
        base_url: str,
        params: Mapping[str, str],
        branch: str = "",
        adapter: str = "rest",
        capabilities: Mapping[str, Any] | None = None,
        deadline_seconds: int = 10,
        calls_max: int = 8,
        maintenance: Sequence[tuple[str, str]] = (),
    ) -> HospitalSiteRow:
        """The HIS; its `event_token` is the last part of /his/v1/events/<token>."""
        return await HospitalSiteRow.create(
            id=self._ids.uuid(),
            institution_id=institution_id,
            branch=branch,
            adapter=adapter,
            base_url=base_url,
            params_enc=self._keyring.encrypt_json(dict(params), place="hospital_site.params"),
            capabilities=dict(capabilities or {}),
            deadline_seconds=deadline_seconds,
            calls_max=calls_max,
            maintenance=[list(window) for window in maintenance],
            event_token=self._ids.token(),
            due_at=self._ids.clock.now(),
        )

    async def merchant_account(
        self, institution_id: UUID, *, channel: str, merchant_no: str, params: Mapping[str, str]
    ) -> MerchantAccountRow:
        """A merchant number; its `notify_token` is the last part of /n/<token>."""
        return await MerchantAccountRow.create(
            id=self._ids.uuid(),
            institution_id=institution_id,
            channel=channel,
            merchant_no=merchant_no,
            params_enc=self._keyring.encrypt_json(dict(params), place="merchant_account.params"),
            notify_token=self._ids.token(),
        )

    async def chat_account(
        self,
        institution_id: UUID,
        *,
        platform: str,
        app_id: str,
        params: Mapping[str, str],
        templates: Mapping[str, str] | None = None,
    ) -> ChatAccountRow:
        """An account on a chat platform; its `callback_token` is the last part of /wx/<token>.

        The token is the same when the same account is entered anew, as its console keeps the address.
        """
        name = "\n".join((str(institution_id), platform, app_id))
        return await ChatAccountRow.create(
            id=self._ids.uuid(),
            institution_id=institution_id,
            platform=platform,
            app_id=app_id,
            params_enc=self._keyring.encrypt_json(dict(params), place="chat_account.params"),
            callback_token=self._keyring.lookup(name, place="chat_account.callback_token")[:CALLBACK_TOKEN_LENGTH],
            templates=dict(templates or {}),
        )

    async def payment_method(
        self,
        institution_id: UUID,
        *,
        merchant_account_id: UUID,
        code: str,
        app_id: str,
        scenes: tuple[Scene, ...] = (Scene.MOBILE,),
        position: int = 0,
        on: bool = True,
    ) -> PaymentMethod:
        """A way of paying on three levels, for example wechatpay/miniprogram/wechat."""
        return await PaymentMethod.create(
            id=self._ids.uuid(),
            institution_id=institution_id,
            merchant_account_id=merchant_account_id,
            code=code,
            app_id=app_id,
            scenes=[scene.value for scene in scenes],
            position=position,
            operator_enabled=on,
        )
