"""What the simulated Alipay tells merchants, when, how often, and what may be wrong with it.

Which events are told is not settled by the documents: `Merchant.told` says, and is everything by default. The
three immediate repeats stand on the pages of payments by code only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote_plus

from simulators.alipay_books import Application, Order, Refund, beijing_time, yuan
from simulators.alipay_faults import FORGERY, NOTICE
from simulators.alipay_keys import NOTICE_WITHOUT, signed_text
from simulators.alipay_ledger import Ledger
from simulators.alipay_platform import Platform
from simulators.alipay_views import notice_fields, some_payer
from simulators.faults import chance
from simulators.kit import Delivery, Request, Response

AT_ONCE = (timedelta(seconds=2),) * 3
RESEND_AFTER = tuple(timedelta(minutes=minutes) for minutes in (4, 10, 10, 60, 120, 360, 900))

# A notice with one of these is not Alipay's by the documented rule; whoever answers `success` believes strangers.
FLAWS = frozenset({"bad_signature", "sha1", "signed_with_type"})
# Signed in order, yet about something else; once.
ODDITIES = frozenset({"of_another_app", "wrong_amount", "wrong_seller", "unknown_state"})


@dataclass(kw_only=True, slots=True)
class Notice:
    """One notice; called for each attempt, so that each is signed at its own time. The id stays the same."""

    notices: Notices
    application: Application  # whose mode decides the signing key
    url: str
    id: str
    key: str
    status: str
    fields: Mapping[str, str]
    charset: str
    gaps: tuple[timedelta, ...]
    flaw: str = ""  # of the first attempt

    def __call__(self, now: datetime) -> Request:
        return self.notices.build(self, now)


class Notices:
    def __init__(self, ledger: Ledger, platform: Platform) -> None:
        self._ledger = ledger
        self._platform = platform

    def send_paid(self, order: Order, now: datetime) -> None:
        status = "TRADE_FINISHED" if order.finished_at else "TRADE_SUCCESS"
        self.send(order, "paid", status, at=now + self._ledger.notice_delay)

    def send_refunded(self, refund: Refund, now: datetime, *, at_once: bool = False) -> None:
        """A partial refund repeats TRADE_SUCCESS, the last one says TRADE_CLOSED; both to the payment's address."""
        at = now if at_once else now + self._ledger.notice_delay
        self.send(refund.order, "refunded", refund.order.state, at=at, refund=refund)

    def send_closed(self, order: Order, now: datetime, *, url: str = "") -> None:
        self.send(order, "closed", "TRADE_CLOSED", at=now + self._ledger.notice_delay, url=url)

    def send_finished(self, order: Order, now: datetime) -> None:
        self.send(order, "finished", "TRADE_FINISHED", at=now + self._ledger.notice_delay)

    def send(
        self, order: Order, event: str, status: str, *, at: datetime, refund: Refund | None = None, url: str = ""
    ) -> None:
        """Tell the merchant at this time, if he wants to know and has said where; faults may decide otherwise."""
        ledger, key, url = self._ledger, order.out_trade_no, url or order.notify_url
        if not url or event not in order.merchant.told:
            return
        fault = ledger.strikes(NOTICE, key)
        if fault == "notice_lost":
            ledger.event("notice_lost", order, at, trade_status=status)
            return
        if fault == "notice_delayed":
            at += timedelta(minutes=1 + int(89 * chance(ledger.seed, "notice delay", key, event)))
        flaw = fault.removeprefix("notice_")
        fields = notice_fields(ledger, order, status, refund)
        identity = ledger.hash("notice", order.merchant.pid, key, event, refund.out_request_no if refund else "")
        for copy in range(3 if fault == "notice_duplicated" else 1):
            # The second copy is the same notice, the third tells the same under another id: both happen.
            notice = Notice(
                notices=self,
                application=order.called_by,
                url=url,
                id=f"{beijing_time(at)[:10].replace('-', '')}{identity[copy // 2 :][:34]}",
                key=key,
                status=status,
                fields=fields,
                charset="gbk" if fault == "notice_in_gbk" else order.charset,
                gaps=() if copy else (*(AT_ONCE if order.product == "precreate" else ()), *RESEND_AFTER),
                flaw=flaw if flaw in FLAWS | ODDITIES else "",
            )
            ledger.deliveries.schedule(due_at=at + copy * timedelta(seconds=20), url=url, key=key, build=notice)

    def forge(self, order: Order, now: datetime) -> None:
        """A stranger who has read the order claims that it was paid."""
        ledger = self._ledger
        if not order.notify_url or not ledger.strikes(FORGERY, order.out_trade_no):
            return
        fields = notice_fields(ledger, order, "TRADE_SUCCESS") | {
            "buyer_open_id": some_payer(ledger, order),
            "receipt_amount": yuan(order.total_fen),
            "gmt_payment": beijing_time(now),
        }
        notice = Notice(
            notices=self,
            application=order.called_by,
            url=order.notify_url,
            id=ledger.hash("forged", order.merchant.pid, order.out_trade_no)[:34],
            key=order.out_trade_no,
            status="TRADE_SUCCESS",
            fields=fields,
            charset=order.charset,
            gaps=(),
            flaw="bad_signature",
        )
        at = now + ledger.notice_delay
        ledger.deliveries.schedule(due_at=at, url=order.notify_url, key=order.out_trade_no, build=notice)

    def build(self, notice: Notice, now: datetime) -> Request:
        """The bytes of one attempt, signed now. Fields without a value are not sent."""
        self._ledger.advance()
        fields = dict(notice.fields) | {
            "notify_time": beijing_time(now),
            "notify_type": "trade_status_sync",
            "notify_id": notice.id,
            "charset": notice.charset,
            "version": "1.0",
            "sign_type": "RSA2",
        }
        fields |= _odd(notice.flaw, fields)
        fields = {name: value for name, value in fields.items() if value}
        without = ("sign",) if notice.flaw == "signed_with_type" else NOTICE_WITHOUT
        message = signed_text(fields, without=without).encode(notice.charset, "replace")
        fields["sign"] = self._platform.signature(self._platform.key_for(notice.application), message, flaw=notice.flaw)
        return Request(
            method="POST",
            target=_target(notice.url),
            headers={
                "content-type": f"application/x-www-form-urlencoded; charset={notice.charset}",
                "user-agent": "Mozilla/4.0",
            },
            body=form(fields, notice.charset).encode(),
        )

    def return_address(self, order: Order, now: datetime) -> str:
        """Where the browser is sent after the cashier; signed like a notice, and no proof of anything."""
        if not order.return_url:
            return ""
        fields = {
            "app_id": order.called_by.app_id,
            "auth_app_id": order.application.app_id,
            "charset": order.charset,
            "method": "alipay.trade.wap.pay.return",
            "out_trade_no": order.out_trade_no,
            "trade_no": order.trade_no,
            "total_amount": yuan(order.total_fen),
            "seller_id": order.merchant.pid,
            "timestamp": beijing_time(now),
            "version": "1.0",
            "sign_type": "RSA2",
        }
        message = signed_text(fields, without=NOTICE_WITHOUT).encode(order.charset, "replace")
        fields["sign"] = self._platform.signature(self._platform.key_for(order.called_by), message)
        return f"{order.return_url}{'&' if '?' in order.return_url else '?'}{form(fields, order.charset)}"

    def delivered(self, delivery: Delivery, response: Response | None) -> None:
        """The seven bytes `success` end a notice; anything else, or nothing, has it sent again as documented."""
        notice = delivery.build
        assert isinstance(notice, Notice)
        ledger = self._ledger
        now = ledger.clock.now()
        accepted = response is not None and response.status == 200 and response.body == b"success"
        ledger.deliveries.log.append(
            {
                "at": beijing_time(now),
                "url": delivery.url,
                "about": delivery.key,
                "event_type": notice.status,
                "attempt": delivery.attempt,
                "flaw": notice.flaw,
                "status": response.status if response else None,
                "accepted": accepted,
            }
        )
        if accepted and notice.flaw in FLAWS:
            ledger.record("flawed_notice_accepted", now, about=delivery.key, flaw=notice.flaw)
        notice.flaw = ""
        if not accepted and delivery.attempt <= len(notice.gaps):
            ledger.deliveries.schedule(
                due_at=now + notice.gaps[delivery.attempt - 1],
                url=delivery.url,
                key=delivery.key,
                build=notice,
                attempt=delivery.attempt + 1,
            )


def form(fields: Mapping[str, str], charset: str) -> str:
    return "&".join(f"{name}={quote_plus(value, encoding=charset, errors='replace')}" for name, value in fields.items())


def _odd(flaw: str, fields: Mapping[str, str]) -> dict[str, str]:
    match flaw:
        case "of_another_app":
            return {"app_id": "2021000000009999", "auth_app_id": "2021000000009999"}
        case "wrong_amount":
            return {"total_amount": f"1{fields['total_amount']}"}
        case "wrong_seller":
            return {"seller_id": "2088999999999999", "seller_email": "somebody@else.example"}
        case "unknown_state":
            return {"trade_status": "TRADE_PENDING"}
    return {}


def _target(url: str) -> str:
    """Path and query of an absolute URL."""
    _, _, rest = url.partition("://")
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"
