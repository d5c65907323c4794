"""Who may enter the simulated Alipay gateway, and how it answers: always HTTP 200, signed once the caller is known.

The order after app_id (first, by measurement) is not published. The strict reading here: what is missing, the
signature, then the values, then the method, then `biz_content`. A `timestamp` may be ten minutes off, as in v3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from simulators.alipay_books import Application, read_beijing_time
from simulators.alipay_calls import CHARSETS, MESSAGES, ApiError, Call, Parameters
from simulators.alipay_fields import check_content
from simulators.alipay_keys import decrypt, encrypt, signed_text, verify
from simulators.alipay_ledger import Ledger
from simulators.alipay_platform import Platform
from simulators.alipay_routes import Route, key_of
from simulators.kit import ConnectionLost, Response

CLOCK_TOLERANCE = timedelta(minutes=10)
HTML = {"content-type": "text/html;charset=utf-8"}
LENGTHS = {"app_id": 32, "method": 128, "charset": 10, "sign": 344, "notify_url": 256, "return_url": 256}
METHOD = re.compile(r"[A-Za-z0-9_.]+")
ANSWERED_IN_GBK = "您的请求无法处理，请稍后再试。"


class Gate:
    def __init__(self, ledger: Ledger, platform: Platform) -> None:
        self._ledger = ledger
        self._platform = platform

    # --- in -----------------------------------------------------------------------------------------

    def known(self, parameters: Parameters) -> Application:
        """The calling application. Raises an unsigned refusal."""
        app_id = parameters.get("app_id")
        if not app_id:
            raise ApiError("40001", "isv.missing-app-id", "缺少AppID参数", signed=False, known_method=False)
        application = self._ledger.applications.get(app_id)
        if application is None:
            text = "无效的AppID参数" + self._solution(parameters)
            raise ApiError("40002", "isv.invalid-app-id", text, signed=False, known_method=False)
        return application

    def enter(self, caller: Application, parameters: Parameters, route: Route | None) -> Call:
        """The checks before the business."""
        self._authenticate(caller, parameters)
        if route is None:
            raise ApiError("40002", "isv.invalid-method", "不存在的方法名", known_method=False)
        application = self._on_behalf(caller, parameters)
        content = self._content(caller, parameters)
        check_content(content, route.fields)
        return Call(
            method=parameters.get("method"),
            parameters=parameters,
            caller=caller,
            application=application,
            content=content,
            encrypted=parameters.get("encrypt_type") == "AES",
            fault=self._ledger.strikes(route.call, key_of(self._ledger, route, parameters)),
        )

    def _authenticate(self, caller: Application, parameters: Parameters) -> None:
        for name, sub in (
            ("method", "method"),
            ("sign_type", "signature-type"),
            ("sign", "signature"),
            ("timestamp", "timestamp"),
            ("version", "version"),
        ):
            if not parameters.get(name):
                raise _missing(sub, known_method=name != "method")
        if parameters.get("sign_type") != "RSA2":
            raise _bad("signature-type", "无效的签名类型")
        if caller.certificate_mode:
            for name in ("app_cert_sn", "alipay_root_cert_sn"):
                if not parameters.get(name):
                    raise _missing(name.replace("_", "-"))
        if parameters.repeated:
            raise _bad("parameter", "参数重复")
        text = signed_text(parameters.values)
        if not verify(caller.public_key, text.encode(parameters.charset, "replace"), parameters.get("sign")):
            raise _bad("signature", _SIGNATURE_TEXT + text.replace("&", "&amp;"))
        self._check_values(caller, parameters)

    def _check_values(self, caller: Application, parameters: Parameters) -> None:
        for name, length_max in LENGTHS.items():
            if len(parameters.get(name)) > length_max:
                raise _bad("parameter", f"{name}过长")
        if parameters.get("charset").lower() not in CHARSETS:
            raise _bad("charset", "字符集错误，目前只支持GBK和UTF-8")
        if parameters.get("format").lower() not in ("", "json"):
            raise _bad("format", "无效的数据格式")
        if parameters.get("version") != "1.0":
            raise _bad("parameter", "无效的版本")
        at = read_beijing_time(parameters.get("timestamp"))
        if at is None or abs(self._ledger.clock.now() - at) > CLOCK_TOLERANCE:
            raise _bad("timestamp", "非法的时间戳参数")
        given = (parameters.get("app_cert_sn"), parameters.get("alipay_root_cert_sn"))
        expected = (caller.cert_sn, self._platform.root_sn) if caller.certificate_mode else ("", "")
        if given != expected:
            raise _bad("parameter", "证书序列号与应用的接入方式不符")

    def _on_behalf(self, caller: Application, parameters: Parameters) -> Application:
        """The merchant's application, when a service provider calls with the merchant's token."""
        token = parameters.get("app_auth_token")
        if not token:
            return caller
        app_id, application = self._ledger.authorisations.get(token, ("", caller))
        if app_id != caller.app_id:
            raise ApiError("20001", "aop.invalid-app-auth-token", "无效的应用授权令牌")
        return application

    def _content(self, caller: Application, parameters: Parameters) -> dict[str, Any]:
        text = parameters.get("biz_content")
        if parameters.get("encrypt_type"):
            if parameters.get("encrypt_type") != "AES":
                raise _bad("encrypt-type", "无效的加密类型")
            if not caller.aes_key:
                raise _missing("encrypt-key")
            try:
                text = decrypt(caller.aes_key, text, parameters.charset)
            except ValueError:
                raise ApiError("40003", "isv.decryption-error-unknown", "解密出错，未知异常") from None
        try:
            content = json.loads(text or "{}")
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ApiError("40002", "isv.illegal-json", "biz_content不是合法的JSON")
        return content

    # --- out ----------------------------------------------------------------------------------------

    def answer(self, call: Call, handler: Callable[[Call], dict[str, Any]], *, bare: bool = False) -> Response:
        fault = call.fault
        try:
            if fault == "unavailable":
                raise ApiError("20000", "isp.unknow-error", "系统繁忙")
            if fault == "system_error":
                raise _system_error(call)
            if fault == "call_limited":
                raise ApiError("40005", "isv.app-call-limited", "应用调用次数超限")
            value = ({} if bare else {"code": "10000", "msg": MESSAGES["10000"]}) | handler(call)
            if fault == "unavailable_accepted":
                raise ApiError("20000", "aop.ACQ.SYSTEM_ERROR", "系统繁忙")
            if fault == "system_error_accepted":
                raise _system_error(call)
            if fault == "unknown_sub_code":
                raise ApiError("40004", "ACQ.SOMETHING_NEW", "新错误")
        except ApiError as error:
            return self.refusal(call.caller, call.parameters, error, bare=bare)
        if fault == "in_process":
            value |= {"code": "10003", "msg": "order success pay inprocess"}
        match fault:
            case "notice_before_answer":
                raise ConnectionLost(call.method)
            case "bad_gateway":
                return Response(status=502, headers={"content-type": "text/html"}, body=b"<html>502 Bad Gateway</html>")
            case "html_answer":
                return error_page(ANSWERED_IN_GBK)
        return self._written(call.caller, call.parameters, value, encrypted=call.encrypted, flaw=fault)

    def refusal(
        self, caller: Application | None, parameters: Parameters, error: ApiError, *, bare: bool = False
    ) -> Response:
        """Never encrypted."""
        known = error.known_method and METHOD.fullmatch(parameters.get("method")) and not bare
        method = parameters.get("method") if known else "error"
        return self._written(caller if error.signed else None, parameters, error.node(), method=method)

    def _written(
        self,
        signer: Application | None,
        parameters: Parameters,
        value: dict[str, Any],
        *,
        method: str = "",
        encrypted: bool = False,
        flaw: str = "",
    ) -> Response:
        """The node, the number of the certificate in certificate mode, the signature over the node's text.

        The Content-Type says UTF-8 whatever the charset of the request and of the body is.
        """
        method = method or parameters.get("method")
        if flaw == "answer_of_another_method":
            method = "alipay.trade.vendorpay.devicedata.upload"
        node = f"{method.replace('.', '_')}_response"
        text = json_text(value).encode(parameters.charset, "replace").decode(parameters.charset)
        if encrypted and signer:
            text = f'"{encrypt(signer.aes_key, text, parameters.charset)}"'
        parts = [f'"{node}":{text}']
        if signer is not None:
            key = self._platform.key_for(signer)
            signature = self._platform.signature(
                key, text.encode(parameters.charset), flaw=flaw.removeprefix("answer_")
            )
            if flaw == "answer_altered":
                parts = [_altered(parts[0])]
            if flaw == "answer_node_twice":
                parts.append(_altered(parts[0]))
            if key.cert_sn:
                parts.append(f'"alipay_cert_sn":"{key.cert_sn}"')
            if flaw != "answer_unsigned":
                parts.append(f'"sign":"{signature}"')
        body = "{" + ",".join(parts) + "}"
        headers = HTML | {"trace_id": self._trace_id(parameters)}
        return Response(status=200, headers=headers, body=body.encode(parameters.charset, "replace"))

    def _trace_id(self, parameters: Parameters) -> str:
        """29 characters."""
        return f"{int(self._ledger.hash('trace', parameters.get('sign'), self._ledger.clock.now())[:28], 16):029d}"[:29]

    def _solution(self, parameters: Parameters) -> str:
        return f"，解决方案：https://open.alipay.com/api/errCheck?traceId={self._trace_id(parameters)}"


_SIGNATURE_TEXT = "验签出错，建议检查签名字符串或签名私钥与应用公钥是否匹配，网关生成的验签字符串为："


def _system_error(call: Call) -> ApiError:
    """The list of alipay.trade.cancel really spells it so."""
    prefix = "AQC" if call.method == "alipay.trade.cancel" else "ACQ"
    return ApiError("40004", f"{prefix}.SYSTEM_ERROR", "系统错误")


def _altered(part: str) -> str:
    """The same node with other words in it."""
    name, _, text = part.partition(":")
    return f"{name}:{text.replace('Success', 'Succeeded', 1) if text.startswith('{') else text[::-1]}"


def json_text(value: object) -> str:
    """As Alipay writes it: compact, Chinese as it is, slashes escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")


def error_page(text: str) -> Response:
    """What page methods answer to a browser: HTML in GBK, HTTP 200."""
    page = f"<!DOCTYPE html><html><head><title>支付宝</title></head><body><p>{text}</p></body></html>"
    return Response(status=200, headers={"content-type": "text/html;charset=GBK"}, body=page.encode("gbk", "replace"))


def _missing(what: str, *, known_method: bool = True) -> ApiError:
    return ApiError("40001", f"isv.missing-{what}", f"缺少参数：{what}", known_method=known_method)


def _bad(what: str, text: str) -> ApiError:
    return ApiError("40002", f"isv.invalid-{what}", text)
