"""What the simulated WeChat Pay tells merchants, when, how often, and what may be wrong with it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from simulators.faults import chance
from simulators.kit import Delivery, Request, Response
from simulators.wechatpay_books import Merchant, Order, PlatformKey, beijing_time
from simulators.wechatpay_faults import FORGERY, NOTICE
from simulators.wechatpay_keys import aead_encrypt
from simulators.wechatpay_ledger import Ledger
from simulators.wechatpay_platform import Platform
from simulators.wechatpay_views import STATE_TEXTS, TRADE_TYPES, payer, transaction

RESEND_AFTER = tuple(
    timedelta(seconds=seconds)
    for seconds in (15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600)
)

# A notice with one of these must be refused; whoever answers it with 200 believes strangers.
FLAWS = frozenset({"stale", "bad_signature", "signtest", "unknown_serial"})


@dataclass(kw_only=True, slots=True)
class Notice:
    """One notice; called for each attempt, so that each is signed at its own time."""

    notices: Notices
    merchant: Merchant  # whose APIv3 key opens it
    url: str
    id: str
    key: str
    event_type: str
    summary: str
    original_type: str
    created_at: datetime
    plaintext: bytes
    signer: PlatformKey | None = None  # None: whichever the merchant is served with
    flaw: str = ""  # of the first attempt
    resends: bool = True
    attempts: int = 0

    def __call__(self, now: datetime) -> Request:
        self.attempts += 1
        return self.notices.build(self, now)


class Notices:
    def __init__(self, ledger: Ledger, platform: Platform) -> None:
        self._ledger = ledger
        self._platform = platform

    def send(
        self,
        merchant: Merchant,
        *,
        url: str,
        key: str,
        event_type: str,
        summary: str,
        original_type: str,
        value: dict[str, Any],
        at: datetime,
        signer: PlatformKey | None = None,
    ) -> None:
        """Tell `merchant`, who must be one that has keys, at this time; faults may decide otherwise."""
        ledger = self._ledger
        if merchant.api_v3_key is None:
            return
        fault = ledger.strikes(NOTICE, key)
        if fault == "notice_lost":
            ledger.record("notice_lost", at, mchid=merchant.mchid, about=key, event_type=event_type)
            return
        if fault == "notice_delayed":
            at += timedelta(minutes=1 + int(89 * chance(ledger.seed, "notice delay", key, event_type)))
        flaw = fault.removeprefix("notice_")
        copies = 3 if fault == "notice_duplicated" else 1
        identity = ledger.hash("notice", merchant.mchid, key, event_type)
        for copy in range(copies):
            # The second copy is the same notice, the third tells the same under another id: both happen.
            notice = Notice(
                notices=self,
                merchant=merchant,
                url=url,
                signer=signer,
                id=str(uuid.UUID(identity[copy // 2 :][:32])),
                key=key,
                event_type=event_type,
                summary=summary,
                original_type=original_type,
                created_at=at,
                plaintext=_plaintext(value),
                flaw=flaw if flaw in FLAWS or flaw == "signed_old_serial" else "",
                resends=copy == 0,
            )
            ledger.deliveries.schedule(due_at=at + copy * timedelta(seconds=20), url=url, key=key, build=notice)

    def send_paid(self, order: Order, now: datetime) -> None:
        self.send(
            order.merchant.signer,
            url=order.asked["notify_url"],
            key=order.out_trade_no,
            event_type="TRANSACTION.SUCCESS",
            summary="支付成功",
            original_type="transaction",
            value=transaction(self._ledger, order),
            at=now + self._ledger.notice_delay,
        )

    def forge(self, order: Order, now: datetime) -> None:
        """A stranger who has read the order, and even the APIv3 key, claims that it was paid."""
        ledger, merchant = self._ledger, order.merchant.signer
        if not ledger.strikes(FORGERY, order.out_trade_no) or merchant.api_v3_key is None:
            return
        value = transaction(ledger, order) | {
            "transaction_id": order.transaction_id,
            "trade_state": "SUCCESS",
            "trade_state_desc": STATE_TEXTS["SUCCESS"],
            "trade_type": TRADE_TYPES[order.product],
            "bank_type": "OTHERS",
            "success_time": beijing_time(now),
            "payer": payer(ledger, order),
            "amount": {
                "total": order.total_fen,
                "payer_total": order.total_fen,
                "currency": "CNY",
                "payer_currency": "CNY",
            },
        }
        url = order.asked["notify_url"]
        notice = Notice(
            notices=self,
            merchant=merchant,
            url=url,
            id=str(uuid.UUID(ledger.hash("forged", order.merchant.mchid, order.out_trade_no)[:32])),
            key=order.out_trade_no,
            event_type="TRANSACTION.SUCCESS",
            summary="支付成功",
            original_type="transaction",
            created_at=now,
            plaintext=_plaintext(value),
            flaw="bad_signature",
            resends=False,
        )
        ledger.deliveries.schedule(due_at=now + ledger.notice_delay, url=url, key=order.out_trade_no, build=notice)

    def build(self, notice: Notice, now: datetime) -> Request:
        """The bytes of one attempt, signed now."""
        ledger, platform, merchant = self._ledger, self._platform, notice.merchant
        ledger.advance()
        assert merchant.api_v3_key is not None
        identity = ledger.hash("attempt", notice.id, notice.attempts)
        nonce = identity[:12]
        value = {
            "id": notice.id,
            "create_time": beijing_time(notice.created_at),
            "resource_type": "encrypt-resource",
            "event_type": notice.event_type,
            "summary": notice.summary,
            "resource": {
                "original_type": notice.original_type,
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": aead_encrypt(
                    merchant.api_v3_key,
                    nonce=nonce,
                    associated_data=notice.original_type,
                    plaintext=notice.plaintext,
                ),
                "associated_data": notice.original_type,
                "nonce": nonce,
            },
        }
        body = _plaintext(value)
        new_way = merchant.public_key_only or chance(ledger.seed, "share", notice.id) < merchant.public_key_share
        key = notice.signer or (platform.public_key if new_way else platform.certificate)
        if notice.flaw == "signed_old_serial":
            key = platform.certificate
        headers = platform.signed(
            key,
            now - timedelta(minutes=10) if notice.flaw == "stale" else now,
            body,
            purpose=identity,
            flaw=notice.flaw,
        )
        headers |= {
            "content-type": "application/json",
            "accept": "*/*",
            "user-agent": "Mozilla/4.0",
            "request-id": f"08{identity[:40].upper()}-0",
        }
        return Request(method="POST", target=_target(notice.url), headers=headers, body=body)

    def delivered(self, delivery: Delivery, response: Response | None) -> None:
        """200 and 204 end a notice; anything else, or nothing, has it sent again as documented."""
        notice = delivery.build
        assert isinstance(notice, Notice)
        ledger = self._ledger
        now = ledger.clock.now()
        accepted = response is not None and response.status in (200, 204)
        entry = {
            "at": beijing_time(now),
            "url": delivery.url,
            "about": delivery.key,
            "event_type": notice.event_type,
            "attempt": delivery.attempt,
            "flaw": notice.flaw,
            "status": response.status if response else None,
            "accepted": accepted,
        }
        ledger.deliveries.log.append(entry)
        if accepted and notice.flaw in FLAWS:
            ledger.record("flawed_notice_accepted", now, about=delivery.key, flaw=notice.flaw)
        notice.flaw = ""
        if not accepted and notice.resends and delivery.attempt <= len(RESEND_AFTER):
            ledger.deliveries.schedule(
                due_at=now + RESEND_AFTER[delivery.attempt - 1],
                url=delivery.url,
                key=delivery.key,
                build=notice,
                attempt=delivery.attempt + 1,
            )


def _plaintext(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _target(url: str) -> str:
    """Path and query of an absolute URL."""
    _, _, rest = url.partition("://")
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"
