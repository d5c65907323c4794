"""What the simulated Alipay keeps in its books."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from simulators.alipay_keys import public_pem

BEIJING = timezone(timedelta(hours=8))

Product = Literal["create", "precreate", "wap"]

TOLD_ALL = frozenset({"paid", "refunded", "closed", "finished"})
TOLD_PAID_ONLY = frozenset({"paid"})
"""What a merchant is notified of. The current pages say paid only; production reports more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformKey:
    """A key Alipay signs with: that of public-key mode (no certificate) or that of its certificate."""

    private_key: RSAPrivateKey
    cert_sn: str = ""
    certificate_pem: str = ""  # leaf and intermediate, leaf first

    @property
    def public_pem(self) -> str:
        return public_pem(self.private_key.public_key())


@dataclass(kw_only=True, slots=True)
class Merchant:
    """Who is paid, by his 16-digit account number (PID); trade numbers are unique within one."""

    pid: str
    email: str
    balance_fen: int
    products: frozenset[str]  # contracted product codes
    mini_apps: frozenset[str]  # mini programs that may call up its pay sheet
    told: frozenset[str] = TOLD_ALL
    refundable: bool = True  # False: a trade is finished as soon as it is paid
    empty_bill: bool = False  # an empty day is an empty file rather than no bill


@dataclass(kw_only=True, slots=True)
class Application:
    """What calls: a key or a certificate of its own, in one mode at a time."""

    app_id: str
    merchant: Merchant
    public_key: RSAPublicKey
    cert_sn: str = ""  # of its certificate; empty in public-key mode
    certificate_pem: str = ""
    aes_key: str = ""  # of content encryption, base64
    knows_open_ids: bool = True  # False: an old application, whose answers name buyers by user_id
    private_key_pem: str = ""  # only when the simulator made the application's key itself

    @property
    def certificate_mode(self) -> bool:
        return bool(self.cert_sn)


@dataclass(kw_only=True, slots=True)
class Order:
    """What was asked for under one out_trade_no; a trade only since `created_at`."""

    merchant: Merchant
    application: Application  # through which it was asked for
    called_by: Application  # another one when a service provider calls
    out_trade_no: str
    product: Product
    asked: dict[str, Any]  # biz_content, for re-entry
    total_fen: int
    notify_url: str
    return_url: str
    charset: str
    asked_at: datetime
    offered_until: datetime  # how long its QR code or page can begin a trade
    life: timedelta | None  # of the trade, from when it exists; None: expires_at was asked for; zero: to the day's end
    trade_no: str = ""  # since it exists
    created_at: datetime | None = None  # when the trade came to be
    expires_at: datetime | None = None
    current_reference: str = ""  # the tradeNO, the QR's content or the newest page
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    finished_at: datetime | None = None
    withdrawn_at: datetime | None = None  # cancelled before there was a trade
    payer: str = ""  # a user_id (2088…) or an open_id
    coupon_fen: int = 0
    refunds: list[Refund] = field(default_factory=list)

    @property
    def exists(self) -> bool:
        return self.created_at is not None

    @property
    def taken_fen(self) -> int:
        return self.total_fen if self.paid_at else 0

    @property
    def payer_fen(self) -> int:
        return self.total_fen - self.coupon_fen

    @property
    def refunded_fen(self) -> int:
        return sum(refund.refund_fen for refund in self.refunds)

    @property
    def refundable_fen(self) -> int:
        return self.taken_fen - self.refunded_fen

    @property
    def state(self) -> str:
        if self.paid_at:
            if self.refundable_fen == 0:
                return "TRADE_CLOSED"
            return "TRADE_FINISHED" if self.finished_at else "TRADE_SUCCESS"
        return "TRADE_CLOSED" if self.closed_at else "WAIT_BUYER_PAY"


@dataclass(kw_only=True, slots=True)
class Refund:
    """Money that went back at once; `shown_at` says from when a refund query knows it."""

    order: Order
    out_request_no: str
    refund_fen: int
    reason: str
    created_at: datetime
    shown_at: datetime
    by_hand: bool = False
    by_cancel: bool = False
    payer_fen: int = 0  # the part that was the buyer's own money


def digits(hexadecimal: str, count: int) -> str:
    return f"{int(hexadecimal[:32], 16) % 10**count:0{count}d}"


def beijing_time(at: datetime) -> str:
    return f"{at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}"


def beijing_time_or_none(at: datetime | None) -> str | None:
    return beijing_time(at) if at else None


def read_beijing_time(text: str) -> datetime | None:
    """A documented time, or None when it does not have that form."""
    try:
        found = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
    except ValueError:
        return None
    return found if beijing_time(found) == text else None


def day_ends(at: datetime) -> datetime:
    """Midnight in Beijing after `at`."""
    midnight = at.astimezone(BEIJING).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=1)


def yuan(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02}"
