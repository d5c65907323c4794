"""Who may enter the simulated WeChat Pay, and how it answers: signed when all is well, unsigned when not."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

from simulators.kit import ConnectionLost, Request, Response
from simulators.wechatpay_books import Merchant
from simulators.wechatpay_calls import ApiError, Call, read_fields
from simulators.wechatpay_keys import parse_authorization, request_message, verify
from simulators.wechatpay_ledger import Ledger
from simulators.wechatpay_platform import Platform
from simulators.wechatpay_routes import Route

CLOCK_TOLERANCE_SECONDS = 300


class Gate:
    def __init__(self, ledger: Ledger, platform: Platform) -> None:
        self._ledger = ledger
        self._platform = platform

    def enter(self, request: Request, route: Route, argument: str, *, key: str) -> Call:
        """The checks before the business, in the order of the real gate. `key` decides which fault strikes."""
        pays = request.path.startswith("/v3/pay/")
        if not pays and not (request.headers.get("accept") and request.headers.get("user-agent")):
            raise ApiError(400, "INVALID_REQUEST", "Http头缺少Accept或User-Agent")
        caller = self._authenticate(request, pays=pays)
        answer_key = self._platform.answer_key(request.headers.get("wechatpay-serial", ""), caller)
        body: dict[str, Any] = {}
        if route.fields is not None:
            if "application/json" not in request.headers.get("content-type", ""):
                raise ApiError(400, "PARAM_ERROR", "Http头Content-Type必须为application/json", number=268435461)
            body = read_fields(request.body, route.fields)
        return Call(
            request=request,
            caller=caller,
            body=body,
            argument=argument,
            product=route.product,
            partner=route.partner,
            query={name: values[0] for name, values in parse_qs(request.query).items()},
            fault=self._ledger.strikes(route.call, key),
            key=answer_key,
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
        if abs(self._ledger.clock.now().timestamp() - int(authorization.timestamp)) > CLOCK_TOLERANCE_SECONDS:
            text = "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟"
            raise ApiError(401, "SIGN_ERROR", text, number=268443699)
        merchant = self._ledger.merchants.get(authorization.mchid)
        public_key = merchant.certificates.get(authorization.serial_no) if merchant else None
        if merchant is None or public_key is None:
            raise ApiError(401, "SIGN_ERROR", "商户证书序列号有误", number=268443699)
        message = request_message(
            request.method, request.target, authorization.timestamp, authorization.nonce_str, request.body
        )
        if not verify(public_key, message, authorization.signature):
            raise ApiError(401, "SIGN_ERROR", "签名错误", number=268443699)
        return merchant

    def answer(self, call: Call, route: Route) -> Response:
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
            return self.refusal(request, error)
        if call.fault == "notice_before_answer":
            raise ConnectionLost(route.call)
        if isinstance(value, bytes):  # a file, never signed
            return Response(status=200, headers={"content-type": "application/octet-stream"}, body=value)
        body = b"" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"request-id": self._request_id(request, 0)}
        if value is not None:
            headers["content-type"] = "application/json; charset=utf-8"
        if call.fault != "answer_unsigned":
            now = self._ledger.clock.now()
            if call.fault == "answer_clock_skewed":
                now -= timedelta(minutes=10)
            headers |= self._platform.signed(
                call.key,
                now,
                body,
                purpose=self._ledger.hash("answer", request.headers.get("authorization", "")),
                flaw=call.fault.removeprefix("answer_"),
            )
        return Response(status=204 if value is None else 200, headers=headers, body=body)

    def refusal(self, request: Request, error: ApiError) -> Response:
        body: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.detail:
            body["detail"] = error.detail
        headers = {}
        if error.status != 401 or not request.path.startswith("/v3/pay/"):
            headers["request-id"] = self._request_id(request, error.number)
        return Response.of_json(body, error.status, headers)

    def closed(self, request: Request, status: int) -> Response:
        """A path or method that there is not: no body."""
        return Response(status=status, headers={"request-id": self._request_id(request, 0)})

    def _request_id(self, request: Request, number: int) -> str:
        ledger = self._ledger
        identity = ledger.hash("request", request.method, request.target, request.headers.get("authorization", ""))
        return f"08{identity[:40].upper()}-{number}"
