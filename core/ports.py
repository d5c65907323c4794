"""What we need from outside, and the values that cross that wall. Adapters fulfil these protocols.

Every call of a Channel, Hospital, ChatPlatform or Messenger raises NotReached, Refused or OutcomeUnknown
(core/errors.py) and nothing else for what happens at or on the way to the counterparty.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from core.clock import OUR_CLOCKS_APART
from core.money import Fen


class Scene(StrEnum):
    """Where a payment is made."""

    MOBILE = "mobile"
    WINDOW = "window"
    CLINIC_ROOM = "clinic_room"
    KIOSK = "kiosk"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unverified:
    """Something arrived whose sender is not proven. `reason` is for logs, never for the sender."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Acknowledgement:
    """How a counterparty wants its message answered."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)  # a signature, where this answer has one


# ---------------------------------------------------------------- payment channels


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelCapabilities:
    """What a channel can do; the rest of the system asks here, never by name."""

    instruments: frozenset[str]  # second level of a payment method: miniprogram, jsapi, native …
    scenes: frozenset[Scene]
    close: bool
    create_reentrant: bool  # the same order sent again, byte for byte the same business, is one order
    notice_is_proof: bool
    partial_refund: bool
    refund_spacing_seconds: int  # between two refunds of one order
    refund_window_days: int
    absence_margin_seconds: int  # how long after expiry "no such order" becomes proof
    expiry_min_seconds: int  # the shortest life of an order that the channel accepts
    request_deadline_seconds: int  # after this long our own request can no longer arrive
    amount_max_fen: Fen


@dataclass(frozen=True, kw_only=True, slots=True)
class MerchantAccount:
    """An institution's number at a channel, with what is needed to speak for it."""

    id: UUID
    institution_id: UUID
    channel: str
    merchant_no: str
    params: Mapping[str, str] = field(repr=False)  # decrypted; which keys exist is the adapter's PARAMS
    notify_url: str  # where the channel's notices go: https://…/n/<account token>


@dataclass(frozen=True, kw_only=True, slots=True)
class TradeOrder:
    """What we ask a channel to collect. The same order_no always carries the same values."""

    order_no: str
    amount_fen: Fen
    description: str
    instrument: str
    app_id: str | None  # of the chat app that the payer uses
    payer_open_id: str | None = field(repr=False, default=None)
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class PayParams:
    """What the payer's app needs to show its pay sheet; `kind` says to whom it is given."""

    kind: str  # "miniprogram" | "jsapi" | "qr_code"
    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trade:
    """A channel's own account of one order, taken from payment facts, never from a state word alone.

    `exists` false: the channel says that it has no such order. `refunded_fen` None: it does not say.
    """

    order_no: str
    exists: bool
    ever_paid: bool
    paid_fen: Fen = Fen(0)
    paid_at: datetime | None = None
    channel_trade_no: str = ""
    refunded_fen: Fen | None = None
    has_refund: bool = False  # the channel knows of a refund, of whatever amount
    closed: bool = False
    state_text: str = ""  # the channel's own word, for people
    raw: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundOrder:
    """What we ask a channel to give back. The same refund_no always carries the same values."""

    refund_no: str
    order_no: str
    channel_trade_no: str
    amount_fen: Fen
    total_fen: Fen  # of the original payment
    reason: str


class RefundState(StrEnum):
    """A channel's word on a refund. UNKNOWN: a word we do not know; it moves nothing."""

    ABSENT = "absent"
    PROCESSING = "processing"
    REFUNDED = "refunded"
    STUCK = "stuck"  # the channel waits for a person (WeChat ABNORMAL)
    DEAD = "dead"  # proven never to happen under this number (WeChat CLOSED)
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundTrade:
    """A channel's own account of one refund."""

    refund_no: str
    order_no: str
    state: RefundState
    amount_fen: Fen = Fen(0)
    refunded_at: datetime | None = None
    channel_refund_no: str = ""
    state_text: str = ""
    raw: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """A verified, decrypted notice. One of trade and refund is set, or neither for notices that book nothing."""

    notice_id: str
    kind: str  # "trade" | "refund" | "probe" | "other"
    trade: Trade | None = None
    refund: RefundTrade | None = None


class StatementKind(StrEnum):
    PAYMENT = "payment"
    REFUND = "refund"


@dataclass(frozen=True, kw_only=True, slots=True)
class StatementEntry:
    """One row of a channel's own list of what was paid and refunded on a day."""

    kind: StatementKind
    order_no: str  # as whoever placed the order numbered it: not all orders of a merchant are ours
    channel_trade_no: str
    refund_no: str = ""
    channel_refund_no: str = ""
    amount_fen: Fen
    at: datetime
    state_text: str = ""  # the channel's own word, for people


class Channel(Protocol):
    """One payment channel; stateless towards our database."""

    name: str
    capabilities: ChannelCapabilities

    async def create(self, account: MerchantAccount, order: TradeOrder) -> PayParams:
        """Place the order. Raises Refused with final=True only for codes that prove no order stands."""
        ...

    async def query(self, account: MerchantAccount, order_no: str) -> Trade: ...

    async def close(self, account: MerchantAccount, order_no: str) -> Trade:
        """Query, close, query: the last answer counts. `closed` is true only when the order can no longer be paid."""
        ...

    async def refund(self, account: MerchantAccount, refund: RefundOrder) -> RefundTrade: ...

    async def query_refund(self, account: MerchantAccount, refund_no: str) -> RefundTrade: ...

    def statement(self, account: MerchantAccount, day: date) -> AsyncIterator[StatementEntry]:
        """What the channel lists for a past day in Shanghai, in bounded memory.

        Raises Refused with final=False while it is not ready yet.
        """
        ...

    async def read_notice(
        self, account: MerchantAccount, headers: Mapping[str, str], body: bytes
    ) -> Notice | Unverified:
        """Verify the raw bytes before anything is parsed; no network. Header names come in lower case."""
        ...

    def acknowledge(self, *, accepted: bool) -> Acknowledgement: ...

    async def check(self, account: MerchantAccount) -> str:
        """Prove keys, clock and reachability without moving money; returns one line for an operator."""
        ...


# ---------------------------------------------------------------- hospitals


class BillKind(StrEnum):
    """What a bill is for; the HIS's own text stands beside it. An unknown kind is OTHER and still payable."""

    WESTERN = "western"
    CHINESE = "chinese"
    TREATMENT = "treatment"
    OTHER = "other"


class IdentifierType(StrEnum):
    """What a person can show to be found in the HIS."""

    ID_CARD = "id_card"
    HOSPITAL_CARD = "hospital_card"
    PASSPORT = "passport"
    HK_MACAU_PERMIT = "hk_macau_permit"
    TAIWAN_PERMIT = "taiwan_permit"
    FOREIGN_PERMANENT_RESIDENT = "foreign_permanent_resident"
    BIRTH_CERTIFICATE = "birth_certificate"


class ConfirmUnit(StrEnum):
    """What the HIS books as one: the group is confirmed, refused and returned together."""

    BILL = "bill"
    VISIT = "visit"
    PAYMENT = "payment"


@dataclass(frozen=True, kw_only=True, slots=True)
class HospitalCapabilities:
    """What one hospital's HIS can do; answered in the questionnaire of docs/connect-a-hospital.md."""

    lock: bool = True
    lock_query: bool = True
    query_payment: bool = True
    list_paid: bool = True
    statement: bool = False  # lists everything that was booked in a time window, page by page
    poll_bills: bool = True  # list of bills issued in a time window
    events: bool = True  # tells us about new, cancelled and window-paid bills
    refund_check: bool = False  # says in advance what of a booked bill may go back, and why not
    refund: bool = False  # takes a booking back for us
    refund_query: bool = False  # says what became of our refund number, and what a red receipt is about
    partial_refund: bool = False  # takes back part of what it booked as one: items of a bill, one bill of a group
    patient_by_id: bool = True  # tells who a bill's patient is; without it a paper's second factor cannot be checked
    confirm_unit: ConfirmUnit = ConfirmUnit.BILL
    processing_limit_seconds: int = 120  # after this long a confirm that it received is booked or refused
    lock_seconds: int = 900  # how long a lock lives when the HIS does not say


@dataclass(frozen=True, kw_only=True, slots=True)
class HospitalSite:
    """One HIS as one institution (and branch) reaches it."""

    id: UUID
    institution_id: UUID
    branch: str
    adapter: str  # "rest"
    base_url: str
    params: Mapping[str, str] = field(repr=False)  # keys and ids, decrypted
    capabilities: HospitalCapabilities = field(default_factory=HospitalCapabilities)
    deadline_seconds: int = 10
    calls_max: int = 8  # at once
    maintenance: tuple[tuple[str, str], ...] = ()  # daily windows, Shanghai time, ("23:30", "00:30")

    @property
    def settles_within(self) -> timedelta:
        """So long after a request left, by any clock of ours, the HIS has done what it asks for or never will."""
        seconds = self.deadline_seconds + self.capabilities.processing_limit_seconds
        return timedelta(seconds=seconds) + OUR_CLOCKS_APART


@dataclass(frozen=True, kw_only=True, slots=True)
class Identifier:
    type: IdentifierType
    value: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class HospitalPatient:
    """A person as the HIS knows them. One person may have several of these."""

    his_patient_id: str
    name: str = field(repr=False)
    phones: tuple[str, ...] = field(repr=False, default=())  # that the HIS holds; a guardian's for a child
    identifiers: tuple[Identifier, ...] = field(repr=False, default=())
    birth_date: str = field(repr=False, default="")  # YYYY-MM-DD or empty


@dataclass(frozen=True, kw_only=True, slots=True)
class BillItem:
    name: str = field(repr=False)
    specification: str = field(repr=False, default="")
    quantity: str = ""
    unit: str = ""
    amount_fen: Fen


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """One prescription or order as the HIS shows it now. Natural key: (institution, branch, his_bill_id)."""

    branch: str
    his_bill_id: str
    his_patient_id: str
    visit_no: str
    kind: BillKind
    kind_text: str
    title: str  # neutral text that may be shown
    department: str = ""
    doctor: str = ""
    issued_at: datetime | None = None
    total_fen: Fen
    to_pay_fen: Fen
    insured: bool = False
    payable_online: bool = True
    not_payable_reason: str = ""  # the HIS's own words
    state: str = "unpaid"  # "unpaid" | "paid" | "cancelled" | "expired" | "unknown"
    merge_group: str = ""
    treat_first: bool = False
    valid_until: datetime | None = None
    items: tuple[BillItem, ...] = ()  # filled by get_bill


@dataclass(frozen=True, kw_only=True, slots=True)
class LockOrder:
    confirm_no: str
    his_patient_id: str
    his_bill_ids: tuple[str, ...]
    until: datetime  # how long we would like it


@dataclass(frozen=True, kw_only=True, slots=True)
class LockGrant:
    """The HIS holds the bills for us at these amounts."""

    lock_id: str
    amounts_fen: Mapping[str, Fen]  # per his_bill_id
    expires_at: datetime


class LockWord(StrEnum):
    """The HIS's answer to "do you hold this for us?"."""

    HELD = "held"
    ABSENT = "absent"
    CONSUMED = "consumed"  # it has been booked


@dataclass(frozen=True, kw_only=True, slots=True)
class LockState:
    word: LockWord
    grant: LockGrant | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfirmLine:
    his_bill_id: str
    amount_fen: Fen


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfirmOrder:
    """What the HIS is told. The same confirm_no always carries the same values."""

    confirm_no: str
    lock_id: str
    his_patient_id: str
    lines: tuple[ConfirmLine, ...]
    order_no: str
    method: str  # channel/instrument/wallet
    channel_trade_no: str
    paid_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class BillReceipt:
    """What the HIS gives for one booked bill."""

    his_bill_id: str
    receipt_no: str
    guide_text: str = ""  # where to go now
    receipt_url: str = ""
    ebill_url: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Booking:
    """The HIS's answer about one confirm_no."""

    booked: bool
    receipts: tuple[BillReceipt, ...] = ()
    raw: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, kw_only=True, slots=True)
class PaidRecord:
    """A paid bill in the HIS's list, whoever took the money."""

    branch: str
    his_bill_id: str
    his_patient_id: str
    title: str
    kind_text: str = ""
    amount_fen: Fen
    paid_at: datetime
    receipt_no: str = ""
    paid_by: str = ""  # "window", "mobile", … in the HIS's words
    confirm_no: str = ""  # ours, when it was paid through us
    guide_text: str = ""
    ebill_url: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BookedBill:
    """A bill that the HIS has booked for us, by the number under which it did."""

    confirm_no: str
    his_bill_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundItem:
    """A part of a booked bill as the HIS counts it."""

    item_id: str
    name: str = field(repr=False)
    amount_fen: Fen
    refundable: bool
    reason: str = ""  # the HIS's own words: handed out, done …


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundableBill:
    """What of a booked bill may go back now. A HIS that does not count by items names none."""

    his_bill_id: str
    allowed_fen: Fen
    reason: str = ""  # the HIS's own words, where it is less than everything
    items: tuple[RefundItem, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReverseLine:
    confirm_no: str
    his_bill_id: str
    amount_fen: Fen
    item_ids: tuple[str, ...] = ()  # empty: the whole bill, or a part that is known by its amount alone


@dataclass(frozen=True, kw_only=True, slots=True)
class ReverseOrder:
    """What the HIS is asked to take back, all or none. The same refund_no always carries the same values."""

    refund_no: str
    order_no: str
    his_patient_id: str
    lines: tuple[ReverseLine, ...]
    reason: str = field(repr=False, default="")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reversal:
    """The HIS's answer about one refund_no; `reversed` false: not, or not yet."""

    reversed: bool
    red_receipt_no: str = ""
    amounts_fen: Mapping[str, Fen] = field(default_factory=dict)  # per his_bill_id
    raw: bytes = field(repr=False, default=b"")


class MoneyBy(StrEnum):
    """Who gives the money of a red receipt back, in the HIS's word."""

    US_ORIGINAL_ROUTE = "us_original_route"
    HOSPITAL_CASH = "hospital_cash"
    HOSPITAL_OTHER = "hospital_other"
    UNKNOWN = "unknown"  # it does not say, or in a word that we do not know


@dataclass(frozen=True, kw_only=True, slots=True)
class RedReceipt:
    """The HIS's answer about one red receipt; `known` false: it has none of that number (yet)."""

    red_receipt_no: str
    known: bool
    refund_no: str = ""  # ours, when we have asked for it
    confirm_no: str = ""  # under which the bills had been booked for us; empty: somebody else's money
    amounts_fen: Mapping[str, Fen] = field(default_factory=dict)  # per his_bill_id
    money_by: MoneyBy = MoneyBy.UNKNOWN
    raw: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, kw_only=True, slots=True)
class PaidPage:
    """A part of what the HIS booked in a time window."""

    records: tuple[PaidRecord, ...]
    has_more: bool


class HospitalEventKind(StrEnum):
    NEW_BILL = "new_bill"
    BILL_CANCELLED = "bill_cancelled"
    PAID_AT_WINDOW = "paid_at_window"
    REFUNDED = "refunded"  # a red receipt was made, at the window or for us
    PROBE = "probe"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True, slots=True)
class HospitalEvent:
    """Something the HIS tells us. Evidence, not a command."""

    event_id: str
    kind: HospitalEventKind
    his_bill_id: str = ""
    his_patient_id: str = ""
    happened_at: datetime | None = None
    red_receipt_no: str = ""  # of REFUNDED; what it is about is asked


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkRequest:
    """A HIS asks for the address that it prints on a bill's paper; name and day are for the label alone."""

    his_bill_id: str  # empty: the HIS has asked, and what for cannot be read
    label: bool = False
    name: str = field(repr=False, default="")
    issued_at: datetime | None = None


class LinkRefusal(StrEnum):
    """Why a HIS is given no address."""

    NOT_ACCEPTED = "REQUEST_NOT_ACCEPTED"  # whoever asks is not proven to be the HIS
    UNREADABLE = "REQUEST_UNREADABLE"
    PAPERS_OFF = "PAPERS_NOT_ASKED_FOR"  # this institution's papers come about in another way


class Hospital(Protocol):
    """One way of reaching a HIS. A refusal is final only if its code is in the adapter's closed list."""

    name: str

    def paper_key(self, site: HospitalSite) -> bytes:
        """The key under which this HIS makes the addresses on its papers; empty when it makes none."""
        ...

    async def find_patients(self, site: HospitalSite, identifier: Identifier) -> tuple[HospitalPatient, ...]: ...

    async def get_patient(self, site: HospitalSite, his_patient_id: str) -> HospitalPatient | None:
        """The person whom the HIS knows by this id, with every phone and document that it holds; None: nobody."""
        ...

    async def list_bills(self, site: HospitalSite, his_patient_id: str) -> tuple[Bill, ...]:
        """All unpaid bills of this patient, insured ones too. Never an empty tuple for "no answer"."""
        ...

    async def list_new_bills(self, site: HospitalSite, since: datetime, until: datetime) -> tuple[Bill, ...]:
        """Bills issued in the half-open window [since, until)."""
        ...

    async def get_bill(self, site: HospitalSite, his_bill_id: str) -> Bill | None:
        """The bill with its items, paid and cancelled ones too; None when the HIS has no such bill."""
        ...

    async def lock_bills(self, site: HospitalSite, order: LockOrder) -> LockGrant: ...

    async def query_lock(self, site: HospitalSite, confirm_no: str) -> LockState: ...

    async def release_lock(self, site: HospitalSite, confirm_no: str) -> None:
        """Safe to repeat; releasing what is not held is a success, releasing what is booked is Refused."""
        ...

    async def confirm_payment(self, site: HospitalSite, order: ConfirmOrder) -> Booking:
        """Refused with final=True proves that this confirm_no is not booked, by this request or an earlier one.

        A HIS may refuse the second telling because the first was booked, so an adapter asks before it says final.
        """
        ...

    async def query_payment(self, site: HospitalSite, confirm_no: str) -> Booking: ...

    async def list_paid(
        self, site: HospitalSite, his_patient_id: str, since: datetime, until: datetime
    ) -> tuple[PaidRecord, ...]: ...

    async def statement(self, site: HospitalSite, since: datetime, until: datetime, page: int) -> PaidPage:
        """Everything that was booked in [since, until), whoever paid; pages count from 0."""
        ...

    async def refund_check(
        self, site: HospitalSite, his_patient_id: str, bills: Sequence[BookedBill]
    ) -> tuple[RefundableBill, ...]:
        """What of these bills may go back now, for each of them; reading only."""
        ...

    async def confirm_refund(self, site: HospitalSite, order: ReverseOrder) -> Reversal:
        """Take these bookings back. `reversed` false: the HIS has received it and is still working.

        Refused with final=True proves that this refund_no is not reversed, by this request or an earlier one.
        """
        ...

    async def query_refund(self, site: HospitalSite, refund_no: str) -> Reversal: ...

    async def query_red_receipt(self, site: HospitalSite, red_receipt_no: str) -> RedReceipt: ...

    async def read_event(
        self, site: HospitalSite, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> HospitalEvent | Unverified:
        """Verify the raw bytes before anything is parsed; no network. Header names come in lower case."""
        ...

    def acknowledge(self, *, accepted: bool) -> Acknowledgement: ...

    async def read_link_request(
        self, site: HospitalSite, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> LinkRequest | Unverified:
        """Verify as for an event, whose signature is none for this; no network. Header names in lower case."""
        ...

    def answer_link_request(
        self, site: HospitalSite, headers: Mapping[str, str], said: Mapping[str, str] | LinkRefusal, now: datetime
    ) -> Acknowledgement:
        """The answer to the request with these headers, in the HIS's form, proven to be ours where it can be."""
        ...

    def opens_at(self, site: HospitalSite) -> datetime | None:
        """When calls are worth trying again (maintenance, breaker); None when they are now."""
        ...

    async def check(self, site: HospitalSite) -> str:
        """Prove keys, clock and reachability, reading only; returns one line for an operator."""
        ...


LOCK_DENIED_CODES = frozenset({"LOCK_HELD_BY_OTHER"})
"""Refusals of lock_bills that are not final for the bill, yet say clearly that nothing is held for us."""

RELOCK_CODES = frozenset({"LOCK_LAPSED", "LOCK_ABSENT"})
"""Refusals of confirm_payment after which the bills are locked again under the same confirm_no."""


# ---------------------------------------------------------------- chat platforms


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatAccount:
    """An institution's account on a chat platform."""

    id: UUID
    institution_id: UUID
    platform: str  # "wechat_service" (official account) | "wechat_miniprogram" | …
    app_id: str
    params: Mapping[str, str] = field(repr=False)  # secret, base_url, token service …, decrypted
    templates: Mapping[str, str] = field(default_factory=dict)  # message kind → the platform's template id


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatIdentity:
    """Who the platform says is using the app. `union_id` joins the accounts of one operator, if it is given."""

    open_id: str = field(repr=False)
    union_id: str = field(repr=False, default="")


class ChatPlatform(Protocol):
    """Login and proof of phone on a chat platform."""

    name: str

    def shows(self, user_agent: str) -> bool:
        """Whether a web page with this User-Agent is open inside this platform's app; false for mini programs."""
        ...

    def sign_in_url(self, account: ChatAccount, *, back_to: str, state: str) -> str:
        """Where a web page sends its user for a sign-in code; the platform returns him to `back_to`?code=…&state=….

        Empty for platforms whose app gets the code by itself.
        """
        ...

    async def union_id(self, account: ChatAccount, open_id: str) -> str:
        """What joins this user to the same person on the operator's other accounts; empty when there is nothing."""
        ...

    async def page_config(self, account: ChatAccount, url: str) -> Mapping[str, str]:
        """What a web page at `url` needs to use the app's scanner; empty where there is nothing to configure."""
        ...

    async def sign_in(self, account: ChatAccount, code: str) -> ChatIdentity:
        """Trade the one-use code of the app for an identity. Refused(final=True) when the code is spent or wrong."""
        ...

    async def phone_number(self, account: ChatAccount, code: str) -> str:
        """The phone that the platform has verified for this user, digits only, without +86."""
        ...


class MessageKind(StrEnum):
    """What a message is about."""

    NEW_BILL = "new_bill"
    PAID = "paid"
    REFUSED_RETURNED = "refused_returned"  # the HIS did not book it; the money goes back
    REFUND_ARRIVED = "refund_arrived"
    CHAT_ANSWER = "chat_answer"  # what somebody asked in the chat and could not be told at once
    PHONE_CODE = "phone_code"  # shows who holds a phone


NOTICE_KINDS = (MessageKind.NEW_BILL, MessageKind.PAID, MessageKind.REFUSED_RETURNED, MessageKind.REFUND_ARRIVED)
"""What a payer is told without having asked: on chat platforms each needs a template."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutgoingMessage:
    """A rendered message; `fields` are ordered and typed as the platform's template wants (thing, amount, time …)."""

    message_id: UUID
    kind: MessageKind
    address: str = field(repr=False)  # an open id, or the phone of a messenger that writes to phones
    language: str  # "zh" | "en"
    fields: Mapping[str, str] = field(repr=False)  # our field name (title, amount, time, place, note …) → text
    page: str = ""  # path in the mini program, with opaque ids only
    url: str = ""  # the web page that shows the same
    text: str = field(repr=False, default="")  # of a CHAT_ANSWER, links included


class SendOutcome(StrEnum):
    """What a platform's definite answer means for the message."""

    ACCEPTED = "accepted"
    NEVER = "never"  # this person cannot or will not receive it
    LATER = "later"  # quota or frequency: not before `not_before`
    MISCONFIGURED = "misconfigured"  # an operator must act; the message waits


@dataclass(frozen=True, kw_only=True, slots=True)
class SendResult:
    outcome: SendOutcome
    code: str = ""
    platform_message_id: str = ""
    not_before: datetime | None = None


class Messenger(Protocol):
    """One way of reaching a payer. Raises NotReached or OutcomeUnknown when there is no definite answer."""

    name: str
    resend_window: timedelta  # within it the platform drops a second copy of the same message_id
    rank: int  # of several that could carry a message the lowest goes first
    writes_to_phones: bool  # its address is a phone number, and it needs the owner's consent

    def carries(self, account: ChatAccount, kind: MessageKind) -> bool:
        """Whether this account is set up for messages of this kind."""
        ...

    async def send(self, account: ChatAccount, message: OutgoingMessage) -> SendResult: ...


class TokenStore(Protocol):
    """Where platform access tokens live; may forget at any moment."""

    async def get(self, key: str) -> str | None: ...

    async def set(self, key: str, value: str, *, life: timedelta) -> None: ...

    async def delete(self, key: str) -> None: ...

    async def acquire(self, key: str, owner: str, *, life: timedelta) -> bool:
        """A short lock; True when it is ours now."""
        ...

    async def release(self, key: str, owner: str) -> None: ...


class Limiter(Protocol):
    """Bounds how often something is done."""

    async def allow(self, key: str, *, limit: int, per: timedelta) -> bool: ...
