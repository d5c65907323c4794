"""The sandbox's accounts at WeChat and at the SMS platform, as an operator of a hospital enters them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from core.models import ChatAccountRow
from core.ports import NOTICE_KINDS, MessageKind
from runtime.setup import Setup
from simulators.sms import SmsSimulator
from simulators.wechat import App, WechatPlatformSimulator

PUSH_TOKEN = "sandboxPushes"  # noqa: S105 (it opens nothing outside this computer)
PUSH_AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
SMS_SIGN = "仁和医院"

TEMPLATES: Mapping[MessageKind, tuple[str, Mapping[str, tuple[str, str]]]] = {
    MessageKind.NEW_BILL: (
        "待缴费通知",
        {"thing1": ("费用", "title"), "amount2": ("金额", "amount"), "time3": ("开单时间", "time"),
         "thing4": ("提示", "note")},
    ),
    MessageKind.PAID: (
        "缴费成功通知",
        {"thing1": ("费用", "title"), "amount2": ("金额", "amount"), "phrase3": ("状态", "status"),
         "thing4": ("下一步", "note")},
    ),
    MessageKind.REFUSED_RETURNED: (
        "缴费未入账通知",
        {"thing1": ("费用", "title"), "amount2": ("退款金额", "amount"), "phrase3": ("状态", "status"),
         "thing4": ("说明", "note")},
    ),
    MessageKind.REFUND_ARRIVED: (
        "退款到账通知",
        {"thing1": ("费用", "title"), "amount2": ("退款金额", "amount"), "phrase3": ("状态", "status"),
         "thing4": ("说明", "note")},
    ),
}  # fmt: skip
"""Each kind's template as an operator would choose it: key → label on the phone, and our field in it."""

TEXTS: Mapping[MessageKind, tuple[str, tuple[str, ...]]] = {
    MessageKind.NEW_BILL: ("您有一笔{1}待缴费，金额{2}元。请打开微信公众号查看。", ("title", "amount")),
    MessageKind.PAID: ("您的{1}已缴费，金额{2}元。", ("title", "amount")),
    MessageKind.REFUSED_RETURNED: ("您的{1}{2}，{3}元将原路退回。", ("title", "status", "amount")),
    MessageKind.REFUND_ARRIVED: ("您的{1}退款{2}元已退回。", ("title", "amount")),
    MessageKind.PHONE_CODE: ("验证码{1}，5分钟内有效。请勿告诉他人。", ("code",)),
}
"""The text messages' templates, approved by the platform, and our field in each variable."""


@dataclass(frozen=True, kw_only=True)
class SandboxAccounts:
    wechat: WechatPlatformSimulator
    sms: SmsSimulator
    service: App
    miniprogram: App
    wechat_url: str
    sms_url: str
    product_url: str

    async def enter(self, setup: Setup, institution_id: UUID) -> ChatAccountRow:
        """Enter all three; returns the official account, whose pushes come to us once `open_callback` was called."""
        await setup.chat_account(
            institution_id,
            platform="wechat_miniprogram",
            app_id=self.miniprogram.app_id,
            params={"secret": self.miniprogram.secret, "base_url": self.wechat_url},
            templates=self._templates(self.miniprogram),
        )
        await setup.chat_account(
            institution_id,
            platform="sms",
            app_id=self.sms.account.sdk_app_id,
            params={
                "secret_id": self.sms.account.secret_id,
                "secret_key": self.sms.account.secret_key,
                "sign_name": SMS_SIGN,
                "base_url": self.sms_url,
            },
            templates=self._texts(),
        )
        return await setup.chat_account(
            institution_id,
            platform="wechat_service",
            app_id=self.service.app_id,
            params={
                "secret": self.service.secret,
                "base_url": self.wechat_url,
                "open_base_url": self.wechat_url,
                "connection": "own",
                "miniprogram_app_id": self.miniprogram.app_id,
                "push_token": PUSH_TOKEN,
                "push_aes_key": PUSH_AES_KEY,
                "push_mode": "safe",
            },
            templates=self._templates(self.service),
        )

    def open_callback(self, callback_token: str) -> None:
        """The operator enters our address in the account's console; the platform then asks it to echo a word."""
        self.wechat.set_callback(
            self.service.app_id,
            url=f"{self.product_url}/wx/{callback_token}",
            token=PUSH_TOKEN,
            aes_key=PUSH_AES_KEY,
            mode="safe",
        )

    def _templates(self, app: App) -> dict[str, str]:
        return {kind.value: self._template(app, kind) for kind in NOTICE_KINDS}

    def _template(self, app: App, kind: MessageKind) -> str:
        title, fields = TEMPLATES[kind]
        labels = {key: label for key, (label, _) in fields.items()}
        template_id = self.wechat.add_template(app.app_id, title, labels, long_term=True)
        return json.dumps({"id": template_id, "fields": {key: source for key, (_, source) in fields.items()}})

    def _texts(self) -> dict[str, str]:
        self.sms.approve_sign(SMS_SIGN)
        return {
            kind.value: json.dumps(
                {
                    "id": self.sms.approve_template(text, kind="code" if kind is MessageKind.PHONE_CODE else "notice"),
                    "params": params,
                }
            )
            for kind, (text, params) in TEXTS.items()
        }
