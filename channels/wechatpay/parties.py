"""Who an account's business is between, in WeChat Pay's own names. No I/O.

A direct merchant (直连商户) signs for itself and is paid. A service provider (服务商) signs for a hospital that is
its sub-merchant (特约商户); the hospital is paid. Source: merchant and partner documents, APIv3, 基础支付.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlencode

from channels.wechatpay.records import Record, Unreadable, expect, text


@dataclass(frozen=True, kw_only=True, slots=True)
class PayerApp:
    """An app in which orders are paid: the fields that name it, and the one that names a payer in it."""

    names: Mapping[str, str]
    open_id_name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Parties:
    """What every request says of the parties, and what every answer and notice must say of them."""

    signer_no: str  # whose key signs, whose APIv3 key opens notices
    orders_path: str
    numbers: Mapping[str, str]  # in an order, a query, a close, and in all that is told about an order
    refund_numbers: Mapping[str, str]  # in a refund and in a query of one
    apps: Mapping[str, PayerApp]  # by app id; the first one is the default
    signer_app_name: str  # the app id that a notice of payment always tells

    @classmethod
    def direct(cls, merchant_no: str, app_ids: Iterable[str]) -> Self:
        return cls(
            signer_no=merchant_no,
            orders_path="/v3/pay/transactions",
            numbers={"mchid": merchant_no},
            refund_numbers={},
            apps={app_id: PayerApp(names={"appid": app_id}, open_id_name="openid") for app_id in app_ids},
            signer_app_name="appid",
        )

    @classmethod
    def partner(cls, merchant_no: str, app_ids: Iterable[str], *, provider_no: str, provider_app_id: str) -> Self:
        """In the provider's own app a payer is known by sp_openid, in the hospital's by sub_openid."""
        own = PayerApp(names={"sp_appid": provider_app_id}, open_id_name="sp_openid")
        return cls(
            signer_no=provider_no,
            orders_path="/v3/pay/partner/transactions",
            numbers={"sp_mchid": provider_no, "sub_mchid": merchant_no},
            refund_numbers={"sub_mchid": merchant_no},
            apps={
                app_id: own
                if app_id == provider_app_id
                else PayerApp(names={**own.names, "sub_appid": app_id}, open_id_name="sub_openid")
                for app_id in app_ids
            },
            signer_app_name="sp_appid",
        )

    @property
    def order_query(self) -> str:
        """What follows the path of an order's query."""
        return f"?{urlencode(self.numbers)}"

    @property
    def refund_query(self) -> str:
        """What follows the path of a refund's query."""
        return f"?{urlencode(self.refund_numbers)}" if self.refund_numbers else ""

    def __str__(self) -> str:
        return ", ".join(f"{name} {number}" for name, number in self.numbers.items())

    def expect(self, record: Record) -> None:
        """Every number is said, and is ours. Raises Unreadable."""
        for name, number in self.numbers.items():
            expect(record, name, number)

    def expect_said(self, record: Record) -> None:
        """Whatever is said of numbers and apps is ours: for messages that need not name anybody. Raises Unreadable."""
        for name, ours in self._said().items():
            if name in record and text(record, name) not in ours:
                raise Unreadable(f"{name} is not ours")

    def _said(self) -> Mapping[str, set[str]]:
        """Everything by which a message can name us."""
        ours = {name: {number} for name, number in self.numbers.items()}
        for app in self.apps.values():
            for name, app_id in app.names.items():
                ours.setdefault(name, set()).add(app_id)
        return ours
