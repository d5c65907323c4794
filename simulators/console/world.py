"""What the sandbox page is given: the counterparties, the clock, the people with their phones, and our books.

The page knows the product only from outside: its HTTP address, `our_books`, and `choose_paper`, which runtime
passes in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from simulators.clock import OffsetClock
from simulators.console.papers import Printer
from simulators.console.phones import Person, Phones
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from simulators.sms import SmsSimulator
from simulators.wechat import WechatPlatformSimulator
from simulators.wechatpay import WechatPaySimulator

OurBooks = Callable[[], Awaitable[dict[str, Any]]]
"""The product's books as JSON values, newest payments first; every key may be missing.

    {"payments": [{"order_no", "status", "view", "asked_fen", "paid_fen", "created_at",
                   "lines": [{"his_bill_id", "title", "amount_fen", "status", "receipt_no",
                              "refunded_fen", "paid_out_fen"}],
                   "refunds": [{"refund_no", "amount_fen", "status"}]}],
     "cases":    [{"kind", "subject", "opened_at"}],                        open ones
     "due":      [{"kind", "count", "next_due_at"}],                        rows that wait, one entry a kind
     "messages": [{"kind", "status", "result_code", "created_at"}]}

`status` and `kind` are the words of core/states.py and core/ports.py, `view` a key of STATUS_TEXTS; times are
RFC 3339. A refund still to be asked for counts as well as one under way.
"""

ChoosePaper = Callable[[str, str], Awaitable[None]]
"""Enters (paper code, paper factor) into the institution's settings, as an operator of the product does."""

WECHAT_PREFIX = "/__wechat__"
"""Under this the in-app browser serves what belongs to the app, not to the page that it shows."""


class Mistake(Exception):
    """The page asked for something that cannot be done; the text is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StaffMember:
    """Somebody who works at the hospital, with the key by which the page calls the product on his behalf."""

    code: str
    title: str
    key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsoleWorld:
    """Everything behind the page; all of it lives in the console's own process, on one event loop."""

    wechatpay: WechatPaySimulator
    wechat: WechatPlatformSimulator
    sms: SmsSimulator
    hospital: HospitalSimulator
    clock: OffsetClock
    faults: Faults
    product_url: str  # http://127.0.0.1:…, where the product answers
    platform_url: str  # http://127.0.0.1:…, where the WeChat platform answers
    institution: str  # its code in the product
    institution_name: str = "示范医院"
    miniprogram_app_id: str
    service_app_id: str
    phones: Phones
    browser_ports: tuple[int, ...]  # of phone 1, phone 2, …: where its in-app browser answers
    printer: Printer
    our_books: OurBooks
    choose_paper: ChoosePaper
    staff: tuple[StaffMember, ...] = ()
    door: str = ""  # the secret of the printed address; empty: only this computer reaches the page

    @property
    def people(self) -> tuple[Person, ...]:
        return self.phones.people


def person_of(world: ConsoleWorld, asked: Mapping[str, Any]) -> Person:
    """Raises Mistake."""
    person = world.phones.person(str(asked.get("person", "")))
    if person is None:
        raise Mistake("没有这个人")
    return person
