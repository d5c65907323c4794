"""A call that has passed the gate of the simulated WeChat Pay, and how one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulators.kit import Request
from simulators.wechatpay_books import Merchant, PlatformKey
from simulators.wechatpay_fields import Field, FieldError, read_body
from simulators.wechatpay_keys import oaep_decrypt

SERIAL_MISSING = "HTTP header缺少微信支付平台证书序列号(Wechatpay-Serial)"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request that has passed the gate."""

    request: Request
    caller: Merchant  # whose key has signed
    body: dict[str, Any]
    argument: str  # the path's variable part
    product: str
    partner: bool  # on a path for service providers
    query: dict[str, str]
    fault: str  # the short name of the specific fault that strikes, or ""
    key: PlatformKey


def param_error(
    pointer: str, value: object, issue: str, *, location: str = "body", number: int = 268435461
) -> ApiError:
    detail = {"field": pointer, "value": value, "issue": issue, "location": location}
    message = f"输入源“/{location}{pointer}”{issue}"
    return ApiError(400, "PARAM_ERROR", message, number=number, detail=detail)


def read_fields(body: bytes, fields: Mapping[str, Field]) -> dict[str, Any]:
    try:
        return read_body(body, fields)
    except FieldError as error:
        number = 270924358 if error.unknown else 268435461
        raise param_error(error.pointer, error.value, error.issue, number=number) from None


def decrypted(key: PlatformKey, pointer: str, text: str) -> str:
    try:
        return oaep_decrypt(key.private_key, text)
    except ValueError:
        raise param_error(pointer, text, "敏感信息解密失败") from None


def same_mchid(caller: Merchant, mchid: str) -> None:
    if mchid != caller.mchid:
        raise ApiError(400, "INVALID_REQUEST", "商户号与签名的商户号不一致", number=268447843)


def payee(caller: Merchant, said: Mapping[str, str], merchants: Mapping[str, Merchant]) -> Merchant:
    """Who is paid: a direct merchant himself, or the sub-merchant that a service provider must name.

    The texts are those that merchants quote in the developers' community, 2022 to 2025.
    """
    sub_mchid = said.get("sub_mchid")
    if not caller.is_provider:
        if sub_mchid is not None:
            raise ApiError(400, "PARAM_ERROR", "普通商户不允许传sub_mch_id", number=268435461)
        return caller
    if sub_mchid is None:
        raise ApiError(400, "PARAM_ERROR", "受理机构必须传入sub_mch_id", number=268443704)
    if sub_mchid == caller.mchid:
        raise ApiError(400, "PARAM_ERROR", "子商户号不能与服务商商户号相同", number=268443705)
    merchant = merchants.get(sub_mchid)
    if merchant is None:
        raise ApiError(400, "MCH_NOT_EXISTS", "商户号不存在")
    if merchant.provider is not caller:
        raise ApiError(403, "NO_AUTH", "特约子商户商户号未授权服务商的产品权限", number=268443701)
    return merchant


def belongs(owner: Merchant, merchant: Merchant) -> None:
    """V2 says NOAUTH with this text; the V3 pages name no code for it."""
    if owner is not merchant:
        raise ApiError(403, "NO_AUTH", "商户号或子商户号与订单号不匹配", number=268447845)
