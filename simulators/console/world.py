"""What the sandbox page is given: the counterparties, the clock, the people, and a way to read our books.

The page knows the product only from outside: its HTTP address, and `our_books`, which runtime passes in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from simulators.clock import OffsetClock
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from simulators.wechat import WechatPlatformSimulator
from simulators.wechatpay import WechatPaySimulator

OurBooks = Callable[[], Awaitable[dict[str, Any]]]
"""The product's books as JSON values, newest payments first; every key may be missing.

    {"payments": [{"order_no", "status", "view", "asked_fen", "paid_fen", "created_at",
                   "lines": [{"his_bill_id", "title", "amount_fen", "status", "receipt_no"}],
                   "refunds": [{"refund_no", "amount_fen", "status"}]}],
     "cases":    [{"kind", "subject", "opened_at"}],                        open ones
     "due":      [{"kind", "count", "next_due_at"}],                        rows that wait, one entry a kind
     "messages": [{"kind", "status", "result_code", "created_at"}]}

`status` and `kind` are the words of core/states.py and core/ports.py, `view` a key of STATUS_TEXTS; times are
RFC 3339. A refund still to be asked for counts as well as one under way.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody ready to be played: a patient of the HIS who holds a phone with WeChat on it."""

    name: str
    phone: str
    identifier_type: str  # "id_card" | "passport" | … as the product's API names them
    identifier: str
    his_patient_ids: tuple[str, ...]  # the first gets the bills
    open_id_user_key: str  # the user of the simulated WeChat platform (its `user_id`)
    note_zh: str = ""

    @property
    def key(self) -> str:
        """Names this person on the page; a phone may belong to two of them, a mother and her child."""
        return self.his_patient_ids[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsoleWorld:
    """Everything behind the page; all of it lives in the console's own process, on one event loop."""

    wechatpay: WechatPaySimulator
    wechat: WechatPlatformSimulator
    hospital: HospitalSimulator
    clock: OffsetClock
    faults: Faults
    product_url: str  # http://127.0.0.1:…, where the product answers
    institution: str  # its code in the product
    institution_name: str = "示范医院"
    miniprogram_app_id: str
    service_app_id: str
    people: tuple[Person, ...]  # the first one is ready when the page opens
    our_books: OurBooks
