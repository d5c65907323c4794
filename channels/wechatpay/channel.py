"""WeChat Pay (APIv3, direct merchant or service provider) as a Channel: mini program, JSAPI, Native."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from channels.wechatpay.client import Client
from channels.wechatpay.mapping import (
    INSTRUMENT_PRODUCTS,
    Absent,
    Call,
    check_refund,
    order_body,
    refund_body,
    refund_of,
    trade_of,
)
from channels.wechatpay.notices import notice_of
from channels.wechatpay.params import Credentials
from channels.wechatpay.parties import Parties
from channels.wechatpay.records import Unreadable, record_of, text
from channels.wechatpay.signing import (
    CLOCK_TOLERANCE_SECONDS,
    decrypt_field,
    encrypt_field,
    pay_message,
    sign_text,
    why_not_signed,
)
from channels.wechatpay.statements import Statements
from core.clock import Clock
from core.errors import ConfigurationError, CounterpartyError, OutcomeUnknown, Refused
from core.money import AMOUNT_FEN_MAX
from core.ports import (
    Acknowledgement,
    ChannelCapabilities,
    MerchantAccount,
    Notice,
    PayParams,
    RefundOrder,
    RefundState,
    RefundTrade,
    Scene,
    StatementEntry,
    Trade,
    TradeOrder,
    Unverified,
)
from wire.canonical import canonical_json
from wire.http import Downloads, HttpReply, NoDownloads, Transport

NOTICE_BYTES_MAX = 256 << 10
REFUNDS_PATH = "/v3/refund/domestic/refunds"
ECHO_PATH = "/v3/security/echo"
CLOCK_WARN_SECONDS = 60

CAPABILITIES = ChannelCapabilities(
    instruments=frozenset(INSTRUMENT_PRODUCTS),
    scenes=frozenset(Scene),
    close=True,
    create_reentrant=True,
    notice_is_proof=True,
    partial_refund=True,
    refund_spacing_seconds=60,
    refund_window_days=365,
    # An expiry less than a minute ahead is raised to a minute when the order arrives; one more for its clock.
    absence_margin_seconds=120,
    expiry_min_seconds=60,
    # A request whose timestamp is older is refused unread, however long it was under way.
    request_deadline_seconds=CLOCK_TOLERANCE_SECONDS,
    amount_max_fen=AMOUNT_FEN_MAX,
)


class WechatPay:
    """Stateless towards our database; holds parsed keys and downloaded certificates in memory."""

    name = "wechatpay"
    capabilities = CAPABILITIES

    def __init__(
        self, transport: Transport, clock: Clock, nonce: Callable[[], str], downloads: Downloads | None = None
    ) -> None:
        """`nonce` gives a fresh unguessable text of at most 32 letters and digits each time."""
        self._client = Client(transport, clock, nonce)
        self._statements = Statements(self._client, downloads or NoDownloads())
        self._clock = clock
        self._nonce = nonce

    async def create(self, account: MerchantAccount, order: TradeOrder) -> PayParams:
        """Place the order, or the same order again: the same parameters are one order until it is paid.

        Raises ConfigurationError for an app id that is not bound to this account, before anything is sent.
        """
        credentials = self._client.credentials(account)
        parties, app_id = credentials.parties, _app_id(credentials, order)
        body = canonical_json(order_body(order, parties=parties, app_id=app_id, notify_url=account.notify_url))
        target = f"{parties.orders_path}/{_product(order)}"
        answer = await self._client.call(account, Call.CREATE, "POST", target, body)
        with _unknown_if_unreadable(Call.CREATE):
            if order.instrument == "native":
                return PayParams(kind="qr_code", values={"code_url": text(record_of(answer), "code_url")})
            prepay_id = text(record_of(answer), "prepay_id")
        return self._pay_params(credentials, order, app_id, prepay_id)

    async def query(self, account: MerchantAccount, order_no: str) -> Trade:
        """Whatever WeChat Pay says about this number; no age limit."""
        parties = self._client.credentials(account).parties
        try:
            target = _order_path(parties, order_no) + parties.order_query
            answer = await self._client.call(account, Call.QUERY, "GET", target)
        except Absent as absent:
            return Trade(order_no=order_no, exists=False, ever_paid=False, state_text=absent.code, raw=absent.raw)
        with _unknown_if_unreadable(Call.QUERY):
            return trade_of(record_of(answer), parties=parties, order_no=order_no, raw=answer)

    async def close(self, account: MerchantAccount, order_no: str) -> Trade:
        """Query, close, query; the last query counts.

        When it proves no end, what went wrong with the close is raised, so that it is tried again.
        """
        before = await self.query(account, order_no)
        if not before.exists or _is_over(before):
            return before
        parties = self._client.credentials(account).parties
        target = f"{_order_path(parties, order_no)}/close"
        failure: CounterpartyError | None = None
        try:
            await self._client.call(account, Call.CLOSE, "POST", target, canonical_json(parties.numbers))
        except CounterpartyError as error:
            failure = error
        after = await self.query(account, order_no)
        if failure is not None and not _is_over(after):
            raise failure
        return after

    async def refund(self, account: MerchantAccount, refund: RefundOrder) -> RefundTrade:
        """Ask for the refund, or the same refund again: one number is refunded once."""
        parties = self._client.credentials(account).parties
        body = canonical_json(refund_body(refund, parties=parties, notify_url=account.notify_url))
        answer = await self._client.call(account, Call.REFUND, "POST", REFUNDS_PATH, body)
        with _unknown_if_unreadable(Call.REFUND):
            record = record_of(answer)
            parties.expect_said(record)
            check_refund(record, refund)
            return refund_of(record, refund_no=refund.refund_no, state_name="status", raw=answer)

    async def query_refund(self, account: MerchantAccount, refund_no: str) -> RefundTrade:
        parties = self._client.credentials(account).parties
        target = f"{REFUNDS_PATH}/{quote(refund_no, safe='')}{parties.refund_query}"
        try:
            answer = await self._client.call(account, Call.QUERY_REFUND, "GET", target)
        except Absent as absent:
            return RefundTrade(
                refund_no=refund_no,
                order_no="",
                state=RefundState.ABSENT,
                state_text=absent.code,
                raw=absent.raw,
            )
        with _unknown_if_unreadable(Call.QUERY_REFUND):
            record = record_of(answer)
            parties.expect_said(record)
            return refund_of(record, refund_no=refund_no, state_name="status", raw=answer)

    def statement(self, account: MerchantAccount, day: date) -> AsyncIterator[StatementEntry]:
        """The trade bill of a past day; there from ten o'clock of the next."""
        return self._statements.entries(account, day)

    async def read_notice(
        self, account: MerchantAccount, headers: Mapping[str, str], body: bytes
    ) -> Notice | Unverified:
        """Serial, clock, signature, decryption, merchant: in this order, from memory alone."""
        if len(body) > NOTICE_BYTES_MAX:
            return Unverified(reason="a notice larger than any")
        if problem := why_not_signed(self._client.keys(account), headers, body, self._clock.now()):
            return Unverified(reason=problem)
        try:
            return notice_of(self._client.credentials(account), body)
        except Unreadable as error:
            return Unverified(reason=str(error))

    def acknowledge(self, *, accepted: bool) -> Acknowledgement:
        """Anything but 200 or 204 has the notice sent again."""
        if accepted:
            return Acknowledgement(status=204)
        return Acknowledgement(status=500, body=canonical_json({"code": "FAIL", "message": "not accepted"}))

    async def check(self, account: MerchantAccount) -> str:
        """WeChat Pay's self-test: signatures both ways, field encryption, and a notice that follows.

        Then an order that cannot exist is asked for: that is refused where the numbers do not belong together, and
        it is all that can be asked of merchants to whom the self-test is not open.
        """
        credentials = self._client.credentials(account)
        parties = credentials.parties
        message = f"zhenfu{self._nonce()}"
        key = self._client.answer_key(account)
        body = canonical_json(
            {
                "echo_message": message,
                "encrypted_echo_message": encrypt_field(key.public_key, message),
                "notify_url": account.notify_url,
            }
        )
        reply = await self._client.exchange(account, "POST", ECHO_PATH, body, key)
        clock = _clock_line(reply, self._clock.now())
        if reply.status in (403, 404, 405):
            await self._ask_for_nothing(account)
            return f"our signature is accepted for {parties}; the self-test is not open to this merchant; {clock}"
        try:
            answer = await self._client.judge(account, Call.ECHO, reply)
        except Refused as refused:
            raise Refused(refused.code, f"{refused.message} ({clock})", raw=refused.raw) from refused
        except OutcomeUnknown as error:
            raise OutcomeUnknown(f"{error} ({clock})") from error
        with _unknown_if_unreadable(Call.ECHO):
            record = record_of(answer)
            if text(record, "echo_message") != message:
                raise Unreadable("the echo is not what we sent")
            if sealed := text(record, "encrypted_echo_message", required=False):
                _check_sealed_echo(credentials, sealed, message)
        await self._ask_for_nothing(account)
        return f"signatures and field encryption work with {key.serial} for {parties}; a test notice follows; {clock}"

    async def refresh_keys(self, account: MerchantAccount) -> tuple[str, ...]:
        """Download the platform certificates now; the serials of all keys held afterwards."""
        return await self._client.renew_certificates(account)

    async def _ask_for_nothing(self, account: MerchantAccount) -> None:
        await self.query(account, f"CHECK{self._nonce()}"[:32])

    def _pay_params(self, credentials: Credentials, order: TradeOrder, app_id: str, prepay_id: str) -> PayParams:
        """Signed for the app that shows the pay sheet, by whoever placed the order."""
        timestamp = str(int(self._clock.now().timestamp()))
        nonce = self._nonce()
        package = f"prepay_id={prepay_id}"
        values = {
            "timeStamp": timestamp,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": sign_text(credentials.signing_key, pay_message(app_id, timestamp, nonce, package)),
        }
        if order.instrument == "miniprogram":
            return PayParams(kind="miniprogram", values=values)
        return PayParams(kind="jsapi", values={"appId": app_id, **values})


def _product(order: TradeOrder) -> str:
    if order.instrument not in INSTRUMENT_PRODUCTS:
        raise ValueError(f"WeChat Pay has no instrument {order.instrument}")
    if order.instrument != "native" and not order.payer_open_id:
        raise ValueError(f"{order.instrument} needs the payer's openid")
    return INSTRUMENT_PRODUCTS[order.instrument]


def _order_path(parties: Parties, order_no: str) -> str:
    return f"{parties.orders_path}/out-trade-no/{quote(order_no, safe='')}"


def _app_id(credentials: Credentials, order: TradeOrder) -> str:
    apps = credentials.parties.apps
    app_id = order.app_id or next(iter(apps))
    if app_id not in apps:
        raise ConfigurationError(f"app id {app_id} is not among those of merchant {credentials.merchant_no}")
    return app_id


def _is_over(trade: Trade) -> bool:
    return trade.ever_paid or trade.closed


@contextmanager
def _unknown_if_unreadable(call: Call) -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        raise OutcomeUnknown(f"{call}: {error}") from error


def _check_sealed_echo(credentials: Credentials, sealed: str, message: str) -> None:
    try:
        opened = decrypt_field(credentials.signing_key.private_key, sealed)
    except ValueError as error:
        raise Unreadable("the encrypted echo cannot be decrypted with our merchant key") from error
    if opened != message:
        raise Unreadable("the encrypted echo is not what we sent")


def _clock_line(reply: HttpReply, now: datetime) -> str:
    """How far our clock is from theirs, from the Date header, else from the signed timestamp."""
    try:
        theirs = parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError):
        stamp = reply.headers.get("wechatpay-timestamp", "")
        if not stamp.isdecimal():
            return "their clock is not stated"
        theirs = float(stamp)
    off = round(now.timestamp() - theirs)
    if abs(off) > CLOCK_WARN_SECONDS:
        return f"OUR CLOCK IS {abs(off)} SECONDS {'FAST' if off > 0 else 'SLOW'}"
    return f"clocks differ by {abs(off)} s"
