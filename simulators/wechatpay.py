"""WeChat Pay V3 with books of its own: orders, refunds, notices, keys, and the payer's phone.

Direct merchants only. What is simulated comes from the public merchant documents (pay.weixin.qq.com, APIv3);
where they are silent the choice is named in a comment. Nothing here is shared with the product.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from simulators.clock import Clock
from simulators.faults import Fault, Faults, chance
from simulators.kit import ConnectionLost, Deliveries, Delivery, Request, Response
from simulators.wechatpay_books import (
    BEIJING,
    Merchant,
    Order,
    PlatformKey,
    Refund,
    beijing_day,
    beijing_time,
    beijing_time_or_none,
    digits,
)
from simulators.wechatpay_console import answer_console
from simulators.wechatpay_faults import FAULTS, FORGERY, NAME, NOTICE, REFUND_OUTCOME
from simulators.wechatpay_fields import (
    ABNORMAL_REFUND_FIELDS,
    CLOSE_FIELDS,
    ECHO_FIELDS,
    ORDER_FIELDS,
    REFUND_FIELDS,
    Field,
    FieldError,
    read_body,
)
from simulators.wechatpay_keys import (
    PUBLIC_KEY_ID_PREFIX,
    SCHEME,
    SIGNTEST_PREFIX,
    aead_encrypt,
    answer_message,
    oaep_decrypt,
    oaep_encrypt,
    parse_authorization,
    pay_sign_message,
    private_pem,
    read_private_key,
    read_public_key,
    request_message,
    rsa_key,
    self_signed_certificate,
    sign,
    verify,
)

CLOCK_TOLERANCE_SECONDS = 300
PREPAY_LIFE = timedelta(hours=2)
H5_LIFE = timedelta(minutes=5)
ORDER_LIFE = timedelta(days=7)
EXPIRE_MAX = {
    "jsapi": timedelta(days=15),
    "h5": timedelta(days=15),
    "app": timedelta(days=15),
    "native": ORDER_LIFE,
}
REFUND_AGE_MAX = timedelta(days=365)
REFUNDS_MAX = 50
REFUND_SPACING = timedelta(minutes=1)
RESEND_AFTER = tuple(
    timedelta(seconds=seconds)
    for seconds in (15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600)
)
STATE_TEXTS = {"NOTPAY": "订单未支付", "SUCCESS": "支付成功", "REFUND": "转入退款", "CLOSED": "订单已关闭"}
TRADE_TYPES = {"jsapi": "JSAPI", "native": "NATIVE", "app": "APP", "h5": "MWEB"}

# A notice with one of these must be refused; whoever answers it with 200 believes strangers.
FLAWS = frozenset({"stale", "bad_signature", "signtest", "unknown_serial"})

PayResult = Literal["paid", "expired", "already_paid", "closed", "cancelled", "wrong_payer", "unknown"]


class ApiError(Exception):
    """A refusal as the service words it; `number` ends its Request-ID."""

    def __init__(
        self, status: int, code: str, message: str, *, number: int = 0, detail: dict[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status} {code} {message}")
        self.status = status
        self.code = code
        self.message = message
        self.number = number
        self.detail = detail


@dataclass(kw_only=True, slots=True)
class _Notice:
    """One notice; called for each attempt, so that each is signed at its own time."""

    simulator: WechatPaySimulator
    merchant: Merchant
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
        return self.simulator.build_notice(self, now)


@dataclass(kw_only=True, slots=True)
class _Reference:
    """What a phone can pay with: a prepay_id, a code_url, an h5_url."""

    order: Order
    valid_until: datetime
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Route:
    call: str
    handler: Callable[[_Call], dict[str, Any] | None]
    fields: Mapping[str, Field] | None = None
    product: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """A request that has passed the gate."""

    request: Request
    merchant: Merchant
    body: dict[str, Any]
    argument: str  # the path's variable part
    product: str
    query: dict[str, str]
    fault: str  # the short name of the specific fault that strikes, or ""
    key: PlatformKey


class WechatPaySimulator:
    """One WeChat Pay for any number of merchants."""

    name = NAME

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults | None = None,
        seed: int = 0,
        notice_delay: timedelta = timedelta(seconds=1),
        refund_delay: timedelta = timedelta(seconds=30),
        public_private_key: RSAPrivateKey | str | None = None,
        certificate_private_key: RSAPrivateKey | str | None = None,
    ) -> None:
        self.clock: Clock = clock
        self.seed = seed
        self.faults: Faults = faults if faults is not None else Faults(seed=seed)
        self.faults.register(FAULTS)
        self.deliveries: Deliveries = Deliveries()
        self.notice_delay = notice_delay
        self.refund_delay = refund_delay
        self.merchants: dict[str, Merchant] = {}
        self.orders: dict[tuple[str, str], Order] = {}
        self.refunds: dict[tuple[str, str], Refund] = {}
        self.events: list[dict[str, Any]] = []
        self._transactions: dict[str, Order] = {}
        self._references: dict[str, _Reference] = {}
        self._due: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._sequence = itertools.count(1)
        self._keys: dict[str, PlatformKey] = {}
        self._rotations = 0
        self._started_at = clock.now()
        self.public_key = self._make_public_key(_private_key(public_private_key, "wechatpay public key"))
        self.certificate = self._make_certificate(_private_key(certificate_private_key, "wechatpay certificate"))

    # --- keys and merchants -----------------------------------------------------------------------

    def add_merchant(
        self,
        mchid: str,
        *,
        appids: set[str] | frozenset[str],
        api_v3_key: str | None = "",
        public_key: RSAPublicKey | str | None = None,
        serial_no: str = "",
        public_key_only: bool = False,
        public_key_share: float = 1.0,
        balance_fen: int = 0,
    ) -> Merchant:
        """Register a merchant. Without `public_key` (PEM of a key or certificate) the simulator makes its key
        pair and hands the private key out in `private_key_pem`, as the merchant console would."""
        if mchid in self.merchants:
            raise ValueError(f"merchant {mchid} exists")
        if api_v3_key is not None and len(api_v3_key.encode()) not in (0, 32):
            raise ValueError("an APIv3 key has 32 characters")
        made_pem = ""
        if public_key is None:
            made = rsa_key(f"merchant {mchid}")
            made_pem = private_pem(made)
            public_key = made.public_key()
        elif isinstance(public_key, str):
            public_key = read_public_key(public_key)
        serial_no = serial_no or self._serial("merchant", mchid)
        merchant = Merchant(
            mchid=mchid,
            appids=frozenset(appids),
            api_v3_key=self._hash("api v3 key", mchid)[:32] if api_v3_key == "" else api_v3_key,
            certificates={serial_no: public_key},
            public_key_only=public_key_only,
            public_key_share=public_key_share,
            balance_fen=balance_fen,
            serial_no=serial_no,
            private_key_pem=made_pem,
        )
        self.merchants[mchid] = merchant
        return merchant

    def rotate_certificate(self) -> PlatformKey:
        """A new platform certificate signs from now on; the one before stays valid and listed."""
        self._rotations += 1
        self.certificate = self._make_certificate(rsa_key(f"wechatpay certificate {self._rotations}"))
        return self.certificate

    def rotate_public_key(self) -> PlatformKey:
        """A new public-key pair signs from now on; a request may still name the old one."""
        self._rotations += 1
        self.public_key = self._make_public_key(rsa_key(f"wechatpay public key {self._rotations}"))
        return self.public_key

    def _make_public_key(self, private_key: RSAPrivateKey) -> PlatformKey:
        now = self.clock.now()
        serial = f"{PUBLIC_KEY_ID_PREFIX}01{digits(self._hash('public key', self._rotations), 32)}"
        key = PlatformKey(
            serial=serial,
            private_key=private_key,
            valid_from=now,
            valid_until=now + timedelta(days=365 * 100),
        )
        self._keys[serial] = key
        return key

    def _make_certificate(self, private_key: RSAPrivateKey) -> PlatformKey:
        valid_from = self.clock.now().replace(microsecond=0) - timedelta(days=1)
        valid_until = valid_from + timedelta(days=365 * 5)
        serial = self._serial("certificate", self._rotations)
        pem = self_signed_certificate(
            private_key,
            serial=serial,
            common_name="Simulated Tenpay.com sign",
            not_before=valid_from,
            not_after=valid_until,
        )
        key = PlatformKey(
            serial=serial,
            private_key=private_key,
            certificate_pem=pem,
            valid_from=valid_from,
            valid_until=valid_until,
        )
        self._keys[serial] = key
        return key

    # --- values derived from the seed ---------------------------------------------------------------

    def _hash(self, *parts: object) -> str:
        text = "\x1f".join([str(self.seed), *map(str, parts)])
        return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()

    def _serial(self, *parts: object) -> str:
        return "5" + self._hash("serial", *parts).upper()[:39]

    # --- the gate -----------------------------------------------------------------------------------

    def classify(self, request: Request) -> tuple[str, str]:
        if request.path.startswith("/_"):
            return "console", request.path
        route, argument = self._route(request.method, request.path)
        if not isinstance(route, _Route):
            return "unknown", request.path
        if route.call in ("create", "refund", "abnormal_refund"):
            name = "out_trade_no" if route.call == "create" else "out_refund_no"
            try:
                return route.call, str(request.json()[name])
            except (ValueError, KeyError, TypeError):
                return route.call, ""
        if "/transactions/id/" in request.path and argument in self._transactions:
            argument = self._transactions[argument].out_trade_no
        return route.call, argument

    async def handle(self, request: Request) -> Response:
        self.advance()
        if request.path.startswith("/_"):
            return answer_console(self, request)
        route, argument = self._route(request.method, request.path)
        if not isinstance(route, _Route):
            return Response(status=route, headers={"request-id": self._request_id(request, 0)})
        try:
            call = self._enter(request, route, argument)
        except ApiError as error:
            return self._refusal(request, error)
        return self._answer(call, route)

    def _route(self, method: str, path: str) -> tuple[_Route | int, str]:
        """The route and the path's variable part; 404 or 405 when there is none."""
        parts = path.split("/")[1:]
        routes: dict[str, _Route] = {}
        argument = ""
        match parts:
            case ["v3", "certificates"]:
                routes["GET"] = _Route(call="certificates", handler=self._certificates)
            case ["v3", "pay", "transactions", "jsapi" | "native" | "app" | "h5" as product]:
                routes["POST"] = _Route(
                    call="create",
                    handler=self._create,
                    fields=ORDER_FIELDS[product],
                    product=product,
                )
            case ["v3", "pay", "transactions", "out-trade-no", argument] if argument:
                routes["GET"] = _Route(call="query", handler=self._query_by_order_no)
            case ["v3", "pay", "transactions", "id", argument] if argument:
                routes["GET"] = _Route(call="query", handler=self._query_by_id)
            case ["v3", "pay", "transactions", "out-trade-no", argument, "close"] if argument:
                routes["POST"] = _Route(call="close", handler=self._close, fields=CLOSE_FIELDS)
            case ["v3", "refund", "domestic", "refunds"]:
                routes["POST"] = _Route(call="refund", handler=self._refund, fields=REFUND_FIELDS)
            case ["v3", "refund", "domestic", "refunds", argument] if argument:
                routes["GET"] = _Route(call="query_refund", handler=self._query_refund)
            case ["v3", "refund", "domestic", "refunds", argument, "apply-abnormal-refund"] if argument:
                routes["POST"] = _Route(
                    call="abnormal_refund",
                    handler=self._abnormal_refund,
                    fields=ABNORMAL_REFUND_FIELDS,
                )
            case ["v3", "security", "echo"]:
                routes["POST"] = _Route(call="echo", handler=self._echo, fields=ECHO_FIELDS)
            case _:
                return 404, ""
        return routes.get(method, 405), unquote(argument)

    def _enter(self, request: Request, route: _Route, argument: str) -> _Call:
        """The checks before the business, in the order of the real gate."""
        pays = request.path.startswith("/v3/pay/")
        if not pays and not (request.headers.get("accept") and request.headers.get("user-agent")):
            raise ApiError(400, "INVALID_REQUEST", "Http头缺少Accept或User-Agent")
        merchant = self._authenticate(request, pays=pays)
        key = self._answer_key(request, merchant)
        body: dict[str, Any] = {}
        if route.fields is not None:
            if "application/json" not in request.headers.get("content-type", ""):
                raise ApiError(400, "PARAM_ERROR", "Http头Content-Type必须为application/json", number=268435461)
            body = _read(request.body, route.fields)
        _, key_of_business = self.classify(request)
        fault = self.faults.pick(self.name, route.call, key_of_business, specific=True)
        return _Call(
            request=request,
            merchant=merchant,
            body=body,
            argument=argument,
            product=route.product,
            query={name: values[0] for name, values in parse_qs(request.query).items()},
            fault=_short(fault),
            key=key,
        )

    def _authenticate(self, request: Request, *, pays: bool) -> Merchant:
        authorization = parse_authorization(request.headers.get("authorization", ""))
        if authorization is None or not authorization.timestamp.isdecimal():
            text = (
                "签名信息错误，验签失败"
                if pays
                else "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》"
            )
            raise ApiError(401, "SIGN_ERROR", text, number=268443699)
        if abs(self.clock.now().timestamp() - int(authorization.timestamp)) > CLOCK_TOLERANCE_SECONDS:
            text = "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟"
            raise ApiError(401, "SIGN_ERROR", text, number=268443699)
        merchant = self.merchants.get(authorization.mchid)
        public_key = merchant.certificates.get(authorization.serial_no) if merchant else None
        if merchant is None or public_key is None:
            raise ApiError(401, "SIGN_ERROR", "商户证书序列号有误", number=268443699)
        message = request_message(
            request.method, request.target, authorization.timestamp, authorization.nonce_str, request.body
        )
        if not verify(public_key, message, authorization.signature):
            raise ApiError(401, "SIGN_ERROR", "签名错误", number=268443699)
        return merchant

    def _answer_key(self, request: Request, merchant: Merchant) -> PlatformKey:
        """The key that signs the answer: the one the request names, else the older way if there is one."""
        serial = request.headers.get("wechatpay-serial", "")
        if not serial:
            return self.public_key if merchant.public_key_only else self.certificate
        key = self._keys.get(serial)
        if key is None or (key.certificate_pem and merchant.public_key_only):
            raise ApiError(400, "PARAM_ERROR", "平台证书序列号Wechatpay-Serial错误", number=268435461)
        return key

    def _answer(self, call: _Call, route: _Route) -> Response:
        request = call.request
        try:
            if call.fault == "rate_limited":
                raise ApiError(429, "RATELIMIT_EXCEEDED", "请求频率过高，请稍后再试", number=268447840)
            if call.fault == "system_error":
                raise ApiError(500, "SYSTEM_ERROR", "系统异常，请稍后重试")
            value = route.handler(call)
            if call.fault == "rate_limited_accepted":
                raise ApiError(429, "FREQUENCY_LIMITED", "频率限制，请降低频率后重试", number=268447840)
            if call.fault == "system_error_accepted":
                raise ApiError(500, "SYSTEM_ERROR", "系统异常，请稍后重试")
        except ApiError as error:
            return self._refusal(request, error)
        if call.fault == "notice_before_answer":
            raise ConnectionLost(route.call)
        body = b"" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"request-id": self._request_id(request, 0)}
        if value is not None:
            headers["content-type"] = "application/json; charset=utf-8"
        if call.fault != "answer_unsigned":
            now = self.clock.now()
            if call.fault == "answer_clock_skewed":
                now -= timedelta(minutes=10)
            headers |= self._signed(
                call.key,
                now,
                body,
                purpose=self._hash("answer", request.headers.get("authorization", "")),
                flaw=call.fault.removeprefix("answer_"),
            )
        return Response(status=204 if value is None else 200, headers=headers, body=body)

    def _signed(self, key: PlatformKey, now: datetime, body: bytes, *, purpose: str, flaw: str) -> dict[str, str]:
        timestamp = str(int(now.timestamp()))
        nonce = self._hash("nonce", purpose, timestamp)[:32]
        private_key = rsa_key("a stranger") if flaw in ("forged", "bad_signature") else key.private_key
        signature = sign(private_key, answer_message(timestamp, nonce, body))
        return {
            "wechatpay-timestamp": timestamp,
            "wechatpay-nonce": nonce,
            "wechatpay-signature": SIGNTEST_PREFIX + signature if flaw == "signtest" else signature,
            "wechatpay-serial": self._serial("unknown") if flaw == "unknown_serial" else key.serial,
            "wechatpay-signature-type": SCHEME,
        }

    def _refusal(self, request: Request, error: ApiError) -> Response:
        body: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.detail:
            body["detail"] = error.detail
        headers = {}
        if error.status != 401 or not request.path.startswith("/v3/pay/"):
            headers["request-id"] = self._request_id(request, error.number)
        return Response.of_json(body, error.status, headers)

    def _request_id(self, request: Request, number: int) -> str:
        identity = self._hash("request", request.method, request.target, request.headers.get("authorization", ""))
        return f"08{identity[:40].upper()}-{number}"

    # --- orders -------------------------------------------------------------------------------------

    def _create(self, call: _Call) -> dict[str, Any]:
        merchant, asked, now = call.merchant, call.body, self.clock.now()
        _same_mchid(merchant, asked["mchid"])
        if asked["appid"] not in merchant.appids:
            raise ApiError(400, "APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配，请检查后再试", number=268445527)
        out_trade_no = asked["out_trade_no"]
        order = self.orders.get((merchant.mchid, out_trade_no))
        if order is None:
            order = Order(
                merchant=merchant,
                out_trade_no=out_trade_no,
                product=call.product,
                asked=asked,
                created_at=now,
                expires_at=_expiry(asked.get("time_expire"), now, call.product),
                transaction_id=self._transaction_id(merchant.mchid, out_trade_no, now),
                payer_openid=asked.get("payer", {}).get("openid", ""),
            )
            self.orders[(merchant.mchid, out_trade_no)] = order
            self._event("order_created", order, now)
            self._at(max(now + ORDER_LIFE, order.expires_at), lambda at: self._close_unpaid(order, at))
            self._forge(order, now)
        elif order.asked != asked or order.product != call.product:
            raise ApiError(403, "OUT_TRADE_NO_USED", "商户订单号重复", number=268498688)
        elif order.closed_at:
            raise ApiError(400, "ORDER_CLOSED", "该订单已关闭，请重新下单", number=268447914)
        elif order.paid_at:
            # The documents name no code for this; clients must query whatever it is.
            raise ApiError(400, "INVALID_REQUEST", "该订单已支付", number=268498689)
        return self._reference_for(order, now)

    def _transaction_id(self, mchid: str, out_trade_no: str, now: datetime) -> str:
        identity = self._hash("transaction", mchid, out_trade_no)
        return f"42000{digits(identity, 5)}{beijing_day(now)}{digits(identity[16:], 10)}"

    def _reference_for(self, order: Order, now: datetime) -> dict[str, Any]:
        order.creations += 1
        identity = self._hash("reference", order.merchant.mchid, order.out_trade_no, order.creations)
        life = min(now + (H5_LIFE if order.product == "h5" else PREPAY_LIFE), order.expires_at)
        prepay_id = f"wx{now.astimezone(BEIJING):%Y%m%d%H%M%S}{identity[:20]}"
        if order.product == "native":
            name, reference = "code_url", f"weixin://wxpay/bizpayurl/up?pr={identity[:9]}z1&groupid=00"
        elif order.product == "h5":
            name = "h5_url"
            reference = (
                f"https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id={prepay_id}"
                f"&package={digits(identity, 10)}"
            )
        else:
            name, reference = "prepay_id", prepay_id
        self._references[reference] = _Reference(order=order, valid_until=life, kind=name)
        order.current_reference = reference
        return {name: reference}

    def _query_by_order_no(self, call: _Call) -> dict[str, Any]:
        return self._query(call, self.orders.get((call.merchant.mchid, call.argument)))

    def _query_by_id(self, call: _Call) -> dict[str, Any]:
        order = self._transactions.get(call.argument)
        return self._query(call, order if order and order.merchant is call.merchant else None)

    def _query(self, call: _Call, order: Order | None) -> dict[str, Any]:
        mchid = call.query.get("mchid")
        if mchid is None:
            raise _param_error("mchid", None, "缺少商户号", location="query")
        _same_mchid(call.merchant, mchid)
        if order is None:
            raise ApiError(404, "ORDER_NOT_EXIST", "订单不存在", number=268512771)
        just_paid = order.paid_at is not None and self.clock.now() - order.paid_at < timedelta(seconds=10)
        value = self._transaction(order, unpaid=call.fault == "query_lags" and just_paid)
        if call.fault == "unknown_trade_state":
            value |= {"trade_state": "SETTLING", "trade_state_desc": "处理中"}
        return value

    def _transaction(self, order: Order, *, unpaid: bool = False) -> dict[str, Any]:
        state = "NOTPAY" if unpaid else order.state
        value: dict[str, Any] = {
            "appid": order.asked["appid"],
            "mchid": order.merchant.mchid,
            "out_trade_no": order.out_trade_no,
            "trade_state": state,
            "trade_state_desc": STATE_TEXTS[state],
            "promotion_detail": [],
        }
        for name in ("attach",):
            if name in order.asked:
                value[name] = order.asked[name]
        if "device_id" in order.asked.get("scene_info", {}):
            value["scene_info"] = {"device_id": order.asked["scene_info"]["device_id"]}
        if order.paid_at is None or unpaid:
            return value | {"amount": {"total": order.total_fen, "payer_currency": "CNY"}, "payer": {}}
        if order.coupon_fen:
            value["promotion_detail"] = [self._promotion(order)]
        return value | {
            "transaction_id": order.transaction_id,
            "trade_type": TRADE_TYPES[order.product],
            "bank_type": "OTHERS",
            "success_time": beijing_time(order.paid_at),
            "payer": {"openid": order.payer_openid},
            "amount": {
                "total": order.total_fen,
                "payer_total": order.payer_fen,
                "currency": "CNY",
                "payer_currency": "CNY",
            },
        }

    def _promotion(self, order: Order) -> dict[str, Any]:
        identity = self._hash("coupon", order.merchant.mchid, order.out_trade_no)
        return {
            "coupon_id": digits(identity, 10),
            "name": "支付立减",
            "scope": "GLOBAL",
            "type": "CASH",
            "amount": order.coupon_fen,
            "stock_id": digits(identity[20:], 8),
            "wechatpay_contribute": order.coupon_fen,
            "merchant_contribute": 0,
            "other_contribute": 0,
            "currency": "CNY",
        }

    def _close(self, call: _Call) -> None:
        _same_mchid(call.merchant, call.body["mchid"])
        order = self.orders.get((call.merchant.mchid, call.argument))
        if order is None:
            raise ApiError(404, "ORDER_NOT_EXIST", "订单不存在", number=268512771)
        if call.fault == "paid_just_before_close":
            self.pay(order.current_reference)
        if order.paid_at:
            raise ApiError(400, call.merchant.close_paid_code, "订单已支付", number=268449538)
        self._close_unpaid(order, self.clock.now())

    def _close_unpaid(self, order: Order, at: datetime) -> None:
        if order.paid_at is None and order.closed_at is None:
            order.closed_at = at
            self._event("order_closed", order, at)

    # --- refunds ------------------------------------------------------------------------------------

    def _refund(self, call: _Call) -> dict[str, Any]:
        merchant, asked, now = call.merchant, call.body, self.clock.now()
        refund = self.refunds.get((merchant.mchid, asked["out_refund_no"]))
        if refund is not None:
            if refund.asked != asked:
                raise ApiError(400, "INVALID_REQUEST", "请求参数与原退款单不一致", number=268435461)
            return self._refund_object(refund)
        if ("transaction_id" in asked) == ("out_trade_no" in asked):
            raise _param_error("/out_trade_no", None, "transaction_id和out_trade_no必须二选一")
        order = (
            self._transactions.get(asked["transaction_id"])
            if "transaction_id" in asked
            else self.orders.get((merchant.mchid, asked["out_trade_no"]))
        )
        if order is None or order.merchant is not merchant or order.paid_at is None:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "订单不存在或未支付", number=268512771)
        amount = asked["amount"]
        if amount["total"] != order.total_fen:
            raise ApiError(400, "INVALID_REQUEST", "订单金额与原订单不一致", number=268435461)
        if now - order.paid_at > REFUND_AGE_MAX:
            raise ApiError(403, "TRADE_OVERDUE", "订单已超过可退款期限")
        if amount["refund"] > order.refundable_fen:
            raise ApiError(400, "INVALID_REQUEST", "申请退款金额超过可退金额", number=268435461)
        if len(order.refunds) >= REFUNDS_MAX:
            raise ApiError(400, "INVALID_REQUEST", "部分退款次数超过50次", number=268435461)
        if order.refunds and now - order.refunds[-1].created_at < REFUND_SPACING:
            raise ApiError(429, "FREQUENCY_LIMITED", "同一笔订单退款间隔须大于1分钟", number=268447840)
        if call.fault == "refund_payer_account_closed":
            raise ApiError(403, "USER_ACCOUNT_ABNORMAL", "用户账户注销")
        if amount["refund"] > merchant.balance_fen or call.fault == "refund_not_enough_balance":
            raise ApiError(403, "NOT_ENOUGH", "基本账户余额不足，请充值后重新发起")
        refund = self._accept_refund(
            order,
            out_refund_no=asked["out_refund_no"],
            refund_fen=amount["refund"],
            asked=asked,
            notify_url=asked.get("notify_url", ""),
            at_once=call.fault == "notice_before_answer",
        )
        return self._refund_object(refund)

    def _accept_refund(
        self,
        order: Order,
        *,
        out_refund_no: str,
        refund_fen: int,
        asked: dict[str, Any],
        notify_url: str,
        at_once: bool = False,
        by_hand: bool = False,
    ) -> Refund:
        now = self.clock.now()
        identity = self._hash("refund", order.merchant.mchid, out_refund_no)
        refund = Refund(
            order=order,
            out_refund_no=out_refund_no,
            refund_id=f"503{digits(identity, 8)}{beijing_day(now)}{digits(identity[20:], 10)}",
            refund_fen=refund_fen,
            asked=asked,
            notify_url=notify_url,
            created_at=now,
            by_hand=by_hand,
        )
        order.refunds.append(refund)
        order.merchant.balance_fen -= refund_fen
        self.refunds[(order.merchant.mchid, out_refund_no)] = refund
        self._event("refund_accepted", order, now, out_refund_no=out_refund_no, fen=refund_fen)
        fault = _short(self.faults.pick(self.name, REFUND_OUTCOME, out_refund_no, specific=True))
        state = {"refund_abnormal": "ABNORMAL", "refund_closed": "CLOSED"}.get(fault, "SUCCESS")
        delay = timedelta(days=2) if fault == "refund_slow" else self.refund_delay
        notice_delay = self.notice_delay
        if at_once:
            delay = notice_delay = timedelta(0)
        self._settle_later(refund, state, now + delay, notice_delay)
        self.advance()
        return refund

    def _settle_later(self, refund: Refund, state: str, at: datetime, notice_delay: timedelta) -> None:
        """The end is decided when the refund is accepted; books and queries see it when its time has come."""
        self._at(at, lambda settled_at: self._settle(refund, state, settled_at))
        if not refund.notify_url:
            return
        order = refund.order
        value: dict[str, Any] = {
            "mchid": order.merchant.mchid,
            "transaction_id": order.transaction_id,
            "out_trade_no": order.out_trade_no,
            "refund_id": refund.refund_id,
            "out_refund_no": refund.out_refund_no,
            "refund_status": state,
            "user_received_account": refund.received_account,
            "amount": {
                "total": order.total_fen,
                "refund": refund.refund_fen,
                "payer_total": order.payer_fen,
                "payer_refund": refund.payer_fen,
            },
        }
        if state == "SUCCESS":
            value["success_time"] = beijing_time(at)
        self._notify(
            order.merchant,
            url=refund.notify_url,
            key=refund.out_refund_no,
            event_type=f"REFUND.{state}",
            summary={"SUCCESS": "退款成功", "ABNORMAL": "退款异常", "CLOSED": "退款关闭"}[state],
            original_type="refund",
            value=value,
            at=at + notice_delay,
        )

    def _settle(self, refund: Refund, state: str, at: datetime) -> None:
        refund.state = state
        refund.settled_at = at
        if state == "CLOSED":
            refund.order.merchant.balance_fen += refund.refund_fen
        kind = f"refund_{state.lower()}"
        self._event(kind, refund.order, at, out_refund_no=refund.out_refund_no, fen=refund.refund_fen)

    def _query_refund(self, call: _Call) -> dict[str, Any]:
        refund = self.refunds.get((call.merchant.mchid, call.argument))
        if refund is None:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "退款单不存在", number=268512771)
        value = self._refund_object(refund)
        if call.fault == "unknown_refund_state":
            value["status"] = "SETTLING"
        return value

    def _refund_object(self, refund: Refund) -> dict[str, Any]:
        order = refund.order
        value: dict[str, Any] = {
            "refund_id": refund.refund_id,
            "out_refund_no": refund.out_refund_no,
            "transaction_id": order.transaction_id,
            "out_trade_no": order.out_trade_no,
            "channel": "ORIGINAL",
            "user_received_account": refund.received_account,
            "create_time": beijing_time(refund.created_at),
            "status": refund.state,
            "funds_account": refund.asked.get("funds_account", "AVAILABLE"),
            "amount": {
                "total": order.total_fen,
                "refund": refund.refund_fen,
                "from": [],
                "payer_total": order.payer_fen,
                "payer_refund": refund.payer_fen,
                "settlement_refund": refund.refund_fen,
                "settlement_total": order.total_fen,
                "discount_refund": refund.refund_fen - refund.payer_fen,
                "currency": "CNY",
                "refund_fee": 0,
            },
            "promotion_detail": [],
        }
        if refund.state == "SUCCESS" and refund.settled_at:
            value["success_time"] = beijing_time(refund.settled_at)
        return value

    def _abnormal_refund(self, call: _Call) -> dict[str, Any]:
        asked = call.body
        refund = self.refunds.get((call.merchant.mchid, asked["out_refund_no"]))
        if refund is None or refund.refund_id != call.argument:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "退款单不存在", number=268512771)
        if asked["type"] == "USER_BANK_CARD":
            if "wechatpay-serial" not in call.request.headers:
                text = "HTTP header缺少微信支付平台证书序列号(Wechatpay-Serial)"
                raise ApiError(400, "PARAM_ERROR", text, number=268435461)
            for name in ("bank_type", "bank_account", "real_name"):
                if name not in asked:
                    raise _param_error(f"/{name}", None, "missing")
            for name in ("bank_account", "real_name"):
                _decrypted(call.key, f"/{name}", asked[name])
        if refund.state == "ABNORMAL":
            self._handle_abnormal(refund, to_merchant=asked["type"] == "MERCHANT_BANK_CARD")
        return self._refund_object(refund)

    def _handle_abnormal(self, refund: Refund, *, to_merchant: bool) -> None:
        now = self.clock.now()
        refund.state = "PROCESSING"
        refund.received_account = "退回商户结算银行账户" if to_merchant else "用户银行卡0403"
        self._event("refund_handled", refund.order, now, out_refund_no=refund.out_refund_no, fen=refund.refund_fen)
        self._settle_later(refund, "SUCCESS", now + self.refund_delay, self.notice_delay)

    # --- certificates and the self-test ---------------------------------------------------------------

    def _certificates(self, call: _Call) -> dict[str, Any]:
        merchant, now = call.merchant, self.clock.now()
        if merchant.public_key_only:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "无可用的平台证书，请在商户平台-API安全申请使用微信支付公钥")
        if merchant.api_v3_key is None:
            raise ApiError(400, "INVALID_REQUEST", "请先设置APIv3密钥")
        data = []
        for key in self._keys.values():
            if not key.certificate_pem or now > key.valid_until:
                continue
            nonce = self._hash("certificate nonce", key.serial, merchant.mchid)[:12]
            data.append(
                {
                    "serial_no": key.serial,
                    "effective_time": beijing_time(key.valid_from),
                    "expire_time": beijing_time(key.valid_until),
                    "encrypt_certificate": {
                        "algorithm": "AEAD_AES_256_GCM",
                        "nonce": nonce,
                        "associated_data": "certificate",
                        "ciphertext": aead_encrypt(
                            merchant.api_v3_key,
                            nonce=nonce,
                            associated_data="certificate",
                            plaintext=key.certificate_pem.encode(),
                        ),
                    },
                }
            )
        return {"data": data}

    def _echo(self, call: _Call) -> dict[str, Any]:
        asked = call.body
        if "wechatpay-serial" not in call.request.headers:
            text = "HTTP header缺少微信支付平台证书序列号(Wechatpay-Serial)"
            raise ApiError(400, "PARAM_ERROR", text, number=268435461)
        value = {"echo_message": asked["echo_message"]}
        notice: dict[str, Any] = {"echo_message": asked["echo_message"]}
        if "encrypted_echo_message" in asked:
            text = _decrypted(call.key, "/encrypted_echo_message", asked["encrypted_echo_message"])
            value["encrypted_echo_message"] = oaep_encrypt(call.merchant.public_key, text)
        if "notify_url" in asked:
            self._notify(
                call.merchant,
                url=asked["notify_url"],
                key=asked["echo_message"],
                event_type="SECURITY_ECHO.SUCCESS",
                summary="回调通知成功",
                original_type="security",
                value=notice,
                at=self.clock.now() + self.notice_delay,
                signer=call.key,
            )
        return value

    # --- notices ------------------------------------------------------------------------------------

    def _notify(
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
        if merchant.api_v3_key is None:
            return
        fault = _short(self.faults.pick(self.name, NOTICE, key, specific=True))
        if fault == "notice_lost":
            self._record("notice_lost", at, mchid=merchant.mchid, about=key, event_type=event_type)
            return
        if fault == "notice_delayed":
            at += timedelta(minutes=1 + int(89 * chance(self.seed, "notice delay", key, event_type)))
        flaw = fault.removeprefix("notice_")
        copies = 3 if fault == "notice_duplicated" else 1
        identity = self._hash("notice", merchant.mchid, key, event_type)
        for copy in range(copies):
            # The second copy is the same notice, the third tells the same under another id: both happen.
            notice = _Notice(
                simulator=self,
                merchant=merchant,
                url=url,
                signer=signer,
                id=str(uuid.UUID(identity[copy // 2 :][:32])),
                key=key,
                event_type=event_type,
                summary=summary,
                original_type=original_type,
                created_at=at,
                plaintext=json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
                flaw=flaw if flaw in FLAWS or flaw == "signed_old_serial" else "",
                resends=copy == 0,
            )
            self.deliveries.schedule(due_at=at + copy * timedelta(seconds=20), url=url, key=key, build=notice)

    def _forge(self, order: Order, now: datetime) -> None:
        """A stranger who has read the order, and even the APIv3 key, claims that it was paid."""
        fault = self.faults.pick(self.name, FORGERY, order.out_trade_no, specific=True)
        if fault is None or order.merchant.api_v3_key is None:
            return
        value = self._transaction(order) | {
            "transaction_id": order.transaction_id,
            "trade_state": "SUCCESS",
            "trade_state_desc": STATE_TEXTS["SUCCESS"],
            "trade_type": TRADE_TYPES[order.product],
            "bank_type": "OTHERS",
            "success_time": beijing_time(now),
            "payer": {"openid": order.payer_openid or self._openid(order)},
            "amount": {
                "total": order.total_fen,
                "payer_total": order.total_fen,
                "currency": "CNY",
                "payer_currency": "CNY",
            },
        }
        notice = _Notice(
            simulator=self,
            merchant=order.merchant,
            url=order.asked["notify_url"],
            id=str(uuid.UUID(self._hash("forged", order.merchant.mchid, order.out_trade_no)[:32])),
            key=order.out_trade_no,
            event_type="TRANSACTION.SUCCESS",
            summary="支付成功",
            original_type="transaction",
            created_at=now,
            plaintext=json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
            flaw="bad_signature",
            resends=False,
        )
        self.deliveries.schedule(
            due_at=now + self.notice_delay,
            url=order.asked["notify_url"],
            key=order.out_trade_no,
            build=notice,
        )

    def build_notice(self, notice: _Notice, now: datetime) -> Request:
        """The bytes of one attempt, signed now."""
        self.advance()
        merchant = notice.merchant
        assert merchant.api_v3_key is not None
        identity = self._hash("attempt", notice.id, notice.attempts)
        nonce = identity[:12]
        body = json.dumps(
            {
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
            },
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        new_way = merchant.public_key_only or chance(self.seed, "share", notice.id) < merchant.public_key_share
        key = notice.signer or (self.public_key if new_way else self.certificate)
        if notice.flaw == "signed_old_serial":
            key = self.certificate
        headers = self._signed(
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
        assert isinstance(notice, _Notice)
        now = self.clock.now()
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
        self.deliveries.log.append(entry)
        if accepted and notice.flaw in FLAWS:
            self._record("flawed_notice_accepted", now, about=delivery.key, flaw=notice.flaw)
        notice.flaw = ""
        if not accepted and notice.resends and delivery.attempt <= len(RESEND_AFTER):
            self.deliveries.schedule(
                due_at=now + RESEND_AFTER[delivery.attempt - 1],
                url=delivery.url,
                key=delivery.key,
                build=notice,
                attempt=delivery.attempt + 1,
            )

    # --- the payer's phone --------------------------------------------------------------------------

    def pay(
        self,
        reference: str,
        payer_openid: str = "",
        *,
        mchid: str = "",
        confirm: bool = True,
        coupon_fen: int = 0,
    ) -> PayResult:
        """The payer's phone, given a prepay_id, code_url, h5_url or order number.

        `confirm=False` closes the pay sheet again. A coupon makes the payer pay less; the merchant still gets
        the whole amount.
        """
        self.advance()
        now = self.clock.now()
        found = self._references.get(reference) or self._reference_of_order(reference, mchid)
        if found is None:
            return "unknown"
        order = found.order
        if order.paid_at:
            return "already_paid"
        if order.closed_at:
            return "closed"
        superseded = found.kind == "code_url" and found is not self._references[order.current_reference]
        if superseded or now >= found.valid_until:
            return "expired"
        if order.product == "jsapi" and payer_openid not in ("", order.payer_openid):
            return "wrong_payer"
        if not confirm:
            self._event("payment_cancelled", order, now)
            return "cancelled"
        if not 0 <= coupon_fen < order.total_fen:
            raise ValueError("a coupon pays less than the whole")
        order.paid_at = now
        order.payer_openid = payer_openid or order.payer_openid or self._openid(order)
        order.coupon_fen = coupon_fen
        order.merchant.balance_fen += order.total_fen
        self._transactions[order.transaction_id] = order
        self._event("order_paid", order, now, fen=order.total_fen)
        self._notify(
            order.merchant,
            url=order.asked["notify_url"],
            key=order.out_trade_no,
            event_type="TRANSACTION.SUCCESS",
            summary="支付成功",
            original_type="transaction",
            value=self._transaction(order),
            at=now + self.notice_delay,
        )
        return "paid"

    def _reference_of_order(self, out_trade_no: str, mchid: str) -> _Reference | None:
        orders = [
            order
            for number in ([mchid] if mchid else self.merchants)
            if (order := self.orders.get((number, out_trade_no)))
        ]
        if len(orders) > 1:
            raise ValueError(f"several merchants have an order {out_trade_no}: name the merchant")
        return self._references[orders[0].current_reference] if orders else None

    def _openid(self, order: Order) -> str:
        return "o" + self._hash("openid", order.merchant.mchid, order.out_trade_no)[:27]

    def check_pay_params(self, params: dict[str, Any], *, appid: str = "") -> str | None:
        """What `requestPayment` (or the JSAPI bridge, or the APP SDK) checks before it opens the pay sheet.

        None when all is well, else the reason the phone would give. `appid` is the program it runs in; empty
        means the one the order was placed for.
        """
        app = "prepayid" in params
        names = ("noncestr", "timestamp", "sign") if app else ("nonceStr", "timeStamp", "paySign", "package")
        for name in names:
            if not isinstance(params.get(name), str) or not params[name]:
                return f"{name} missing or not text"
        if not app and params.get("signType") != "RSA":
            return "signType must be RSA"
        package = str(params["prepayid"] if app else params["package"])
        found = self._references.get(package if app else package.removeprefix("prepay_id="))
        if found is None or found.kind != "prepay_id" or (not app and not package.startswith("prepay_id=")):
            return "no such prepay_id"
        expected_appid = appid or found.order.asked["appid"]
        if expected_appid != found.order.asked["appid"] or params.get("appId", expected_appid) != expected_appid:
            return "appid does not match the order"
        if app != (found.order.product == "app"):
            return "the order was placed for another product"
        nonce, timestamp, signature = (params[name] for name in names[:3])
        message = pay_sign_message(expected_appid, timestamp, nonce, package)
        if not any(verify(key, message, signature) for key in found.order.merchant.certificates.values()):
            return "支付验证签名失败"
        return None

    def pay_with(self, params: dict[str, Any], payer_openid: str = "", *, confirm: bool = True) -> PayResult | str:
        """Open the pay sheet with signed parameters and pay; why they are refused is returned as text."""
        refused = self.check_pay_params(params)
        if refused is not None:
            return refused
        prepay_id = str(params.get("prepayid") or params["package"]).removeprefix("prepay_id=")
        return self.pay(prepay_id, payer_openid, confirm=confirm)

    # --- the merchant console -----------------------------------------------------------------------

    def top_up(self, mchid: str, fen: int) -> int:
        """Put money into the merchant's account (or take it out, when negative); returns the new balance."""
        merchant = self.merchants[mchid]
        if merchant.balance_fen + fen < 0:
            raise ValueError("the balance cannot be negative")
        merchant.balance_fen += fen
        self._record("balance_changed", self.clock.now(), mchid=mchid, fen=fen)
        return merchant.balance_fen

    def refund_by_hand(self, mchid: str, out_trade_no: str, refund_fen: int) -> str:
        """A refund made by staff in the merchant console; returns its number.

        Nothing is notified in V3: the console's own refunds are told in the V2 format at most.
        """
        self.advance()
        order = self.orders[(mchid, out_trade_no)]
        if not 0 < refund_fen <= min(order.refundable_fen, order.merchant.balance_fen):
            raise ValueError("more than can be refunded")
        out_refund_no = digits(self._hash("by hand", mchid, out_trade_no, len(order.refunds)), 28)
        self._accept_refund(
            order, out_refund_no=out_refund_no, refund_fen=refund_fen, asked={}, notify_url="", by_hand=True
        )
        return out_refund_no

    def handle_abnormal(self, mchid: str, out_refund_no: str) -> None:
        """Staff name another account for an ABNORMAL refund in the merchant console."""
        self.advance()
        refund = self.refunds[(mchid, out_refund_no)]
        if refund.state != "ABNORMAL":
            raise ValueError(f"refund {out_refund_no} is {refund.state}")
        self._handle_abnormal(refund, to_merchant=True)

    # --- books ----------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Let everything happen whose time has come."""
        now = self.clock.now()
        while self._due and self._due[0][0] <= now:
            at, _, happen = heapq.heappop(self._due)
            happen(at)

    def _at(self, at: datetime, happen: Callable[[datetime], None]) -> None:
        heapq.heappush(self._due, (at, next(self._sequence), happen))

    def _event(self, kind: str, order: Order, at: datetime, **more: object) -> None:
        self._record(kind, at, mchid=order.merchant.mchid, out_trade_no=order.out_trade_no, **more)

    def _record(self, kind: str, at: datetime, **more: object) -> None:
        self.events.append({"at": beijing_time(at), "kind": kind, **more})

    def books(self) -> dict[str, Any]:
        """Everything that happened to money, as JSON values; for the oracle and for the console's page."""
        self.advance()
        return {
            "merchants": [
                {
                    "mchid": merchant.mchid,
                    "appids": sorted(merchant.appids),
                    "balance_fen": merchant.balance_fen,
                }
                for merchant in self.merchants.values()
            ],
            "orders": [self._order_in_books(order) for order in self.orders.values()],
            "refunds": [
                {
                    "mchid": refund.order.merchant.mchid,
                    "out_trade_no": refund.order.out_trade_no,
                    "out_refund_no": refund.out_refund_no,
                    "refund_id": refund.refund_id,
                    "refund_fen": refund.refund_fen,
                    "state": refund.state,
                    "by_hand": refund.by_hand,
                    "created_at": beijing_time(refund.created_at),
                    "settled_at": beijing_time_or_none(refund.settled_at),
                }
                for refund in self.refunds.values()
            ],
            "events": sorted(self.events, key=lambda event: str(event["at"])),
        }

    def _order_in_books(self, order: Order) -> dict[str, Any]:
        return {
            "mchid": order.merchant.mchid,
            "out_trade_no": order.out_trade_no,
            "transaction_id": order.transaction_id if order.paid_at else None,
            "product": order.product,
            "description": order.asked["description"],
            "attach": order.asked.get("attach"),
            "total_fen": order.total_fen,
            "taken_fen": order.taken_fen,
            "coupon_fen": order.coupon_fen,
            # Accepted and not closed: gone from the merchant, wherever it is on its way to the payer.
            "returning_fen": sum(r.refund_fen for r in order.refunds if r.state in ("PROCESSING", "ABNORMAL")),
            "refunded_fen": sum(r.refund_fen for r in order.refunds if r.state == "SUCCESS"),
            "state": order.state,
            "payer_openid": order.payer_openid,
            "reference": order.current_reference,
            "created_at": beijing_time(order.created_at),
            "expires_at": beijing_time(order.expires_at),
            "paid_at": beijing_time_or_none(order.paid_at),
            "closed_at": beijing_time_or_none(order.closed_at),
        }


def _private_key(given: RSAPrivateKey | str | None, name: str) -> RSAPrivateKey:
    if given is None:
        return rsa_key(name)
    return read_private_key(given) if isinstance(given, str) else given


def _short(fault: Fault | None) -> str:
    return fault.name.removeprefix(f"{NAME}.") if fault else ""


def _target(url: str) -> str:
    """Path and query of an absolute URL."""
    _, _, rest = url.partition("://")
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def _param_error(
    pointer: str, value: object, issue: str, *, location: str = "body", number: int = 268435461
) -> ApiError:
    detail = {"field": pointer, "value": value, "issue": issue, "location": location}
    message = f"输入源“/{location}{pointer}”{issue}"
    return ApiError(400, "PARAM_ERROR", message, number=number, detail=detail)


def _read(body: bytes, fields: Mapping[str, Field]) -> dict[str, Any]:
    try:
        return read_body(body, fields)
    except FieldError as error:
        number = 270924358 if error.unknown else 268435461
        raise _param_error(error.pointer, error.value, error.issue, number=number) from None


def _same_mchid(merchant: Merchant, mchid: str) -> None:
    if mchid != merchant.mchid:
        raise ApiError(400, "INVALID_REQUEST", "商户号与签名的商户号不一致", number=268447843)


def _expiry(text: str | None, now: datetime, product: str) -> datetime:
    """When the order can no longer be paid; a time that is too near is raised to a minute from now."""
    if text is None:
        return now + ORDER_LIFE
    try:
        asked = datetime.fromisoformat(text)
    except ValueError:
        raise _param_error("/time_expire", text, "must be RFC 3339") from None
    if asked.tzinfo is None:
        raise _param_error("/time_expire", text, "must have an offset")
    if asked > now + EXPIRE_MAX[product]:
        raise _param_error("/time_expire", text, "too far ahead")
    return max(asked, now + timedelta(minutes=1))


def _decrypted(key: PlatformKey, pointer: str, text: str) -> str:
    try:
        return oaep_decrypt(key.private_key, text)
    except ValueError:
        raise _param_error(pointer, text, "敏感信息解密失败") from None


__all__ = [
    "BEIJING",
    "FAULTS",
    "RESEND_AFTER",
    "Merchant",
    "Order",
    "PayResult",
    "PlatformKey",
    "Refund",
    "WechatPaySimulator",
]
