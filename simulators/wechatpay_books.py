"""What the simulated WeChat Pay keeps in its books."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from simulators.wechatpay_keys import public_pem

BEIJING = timezone(timedelta(hours=8))


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformKey:
    """A key WeChat Pay signs with: its public key (`PUB_KEY_ID_…`) or one of its platform certificates."""

    serial: str
    private_key: RSAPrivateKey
    certificate_pem: str = ""  # empty for the public-key pair
    valid_from: datetime
    valid_until: datetime

    @property
    def public_pem(self) -> str:
        return public_pem(self.private_key.public_key())


@dataclass(kw_only=True, slots=True)
class Merchant:
    mchid: str
    appids: frozenset[str]
    api_v3_key: str | None  # None: never set in the merchant console, so no notice is ever sent
    certificates: dict[str, RSAPublicKey]  # API certificate serial → the merchant's public key
    public_key_only: bool  # a new merchant: there are no platform certificates for it
    public_key_share: float  # the part of the notices that is signed with the public-key pair already
    balance_fen: int
    close_paid_code: str = "ORDER_PAID"  # the V3 pages fix none
    serial_no: str = ""
    private_key_pem: str = ""  # only when the simulator made the merchant's key itself
    is_provider: bool = False  # a service provider (服务商): signs for its sub-merchants and is never paid itself
    provider: Merchant | None = None  # of a sub-merchant (特约商户): who signs for it; it has no keys of its own
    refunds_authorised: bool = True  # 服务商API退款: the sub-merchant lets its provider refund

    @property
    def signer(self) -> Merchant:
        """Who speaks for this merchant, and in whose books its numbers are unique."""
        return self.provider or self

    @property
    def public_key(self) -> RSAPublicKey:
        return self.certificates[self.serial_no]


@dataclass(kw_only=True, slots=True)
class Order:
    merchant: Merchant  # who is paid
    out_trade_no: str
    product: str
    asked: dict[str, Any]  # the request body, for re-entry
    created_at: datetime
    expires_at: datetime
    transaction_id: str
    creations: int = 0
    current_reference: str = ""  # the newest code_url
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    payer_openid: str = ""
    coupon_fen: int = 0
    refunds: list[Refund] = field(default_factory=list)

    @property
    def appids(self) -> tuple[str, ...]:
        """The apps that may show its pay sheet; first the one that knows the payer."""
        asked = self.asked
        names = ("sp_appid", "sub_appid") if "sp_openid" in asked.get("payer", {}) else ("sub_appid", "sp_appid")
        return tuple(asked[name] for name in ("appid", *names) if name in asked)

    @property
    def total_fen(self) -> int:
        return int(self.asked["amount"]["total"])

    @property
    def taken_fen(self) -> int:
        return self.total_fen if self.paid_at else 0

    @property
    def payer_fen(self) -> int:
        return self.total_fen - self.coupon_fen

    @property
    def refundable_fen(self) -> int:
        return self.taken_fen - sum(refund.refund_fen for refund in self.refunds if refund.state != "CLOSED")

    @property
    def state(self) -> str:
        if self.paid_at:
            return "REFUND" if self.refunds else "SUCCESS"
        return "CLOSED" if self.closed_at else "NOTPAY"


@dataclass(kw_only=True, slots=True)
class Refund:
    order: Order
    out_refund_no: str
    refund_id: str
    refund_fen: int
    asked: dict[str, Any]
    notify_url: str
    created_at: datetime
    state: str = "PROCESSING"  # → SUCCESS | CLOSED | ABNORMAL; ABNORMAL → PROCESSING when handled
    settled_at: datetime | None = None
    by_hand: bool = False
    received_account: str = "支付用户零钱"

    @property
    def payer_fen(self) -> int:
        return self.refund_fen * self.order.payer_fen // self.order.total_fen


def digits(hexadecimal: str, count: int) -> str:
    return f"{int(hexadecimal[:32], 16) % 10**count:0{count}d}"


def beijing_day(at: datetime) -> str:
    return f"{at.astimezone(BEIJING):%Y%m%d}"


def beijing_time(at: datetime) -> str:
    return at.astimezone(BEIJING).isoformat(timespec="seconds")


def beijing_time_or_none(at: datetime | None) -> str | None:
    return beijing_time(at) if at else None
