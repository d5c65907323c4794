"""What may go wrong at the simulated WeChat platform, and how business struck by it must end."""

from __future__ import annotations

from simulators.faults import Effect, Fault

NAME = "wechat"

TOKEN_CALLS = frozenset({"token", "stable_token"})
SEND_CALLS = frozenset({"template_send", "subscribe_send", "subscribe_bizsend"})
LOGIN_CALLS = frozenset({"code2session", "phone_number"})
WITH_TOKEN = SEND_CALLS | {"phone_number", "jsapi_ticket"}
API_CALLS = TOKEN_CALLS | LOGIN_CALLS | WITH_TOKEN | {"token_service"}


def _fault(name: str, calls: frozenset[str], title_zh: str, ends: str, effect: Effect = Effect.SPECIFIC) -> Fault:
    return Fault(name=f"{NAME}.{name}", counterparty=NAME, calls=calls, effect=effect, title_zh=title_zh, ends=ends)


_MAYBE_SENT = (
    "Unknown at first; a template message is sent again inside its 10 minutes and shows once, "
    "any other is never sent again; a login starts again from the app."
)

FAULTS: tuple[Fault, ...] = (
    # The line.
    _fault(
        "not_reached",
        API_CALLS,
        "连不上微信平台",
        "Nothing was sent; the same call is made again later.",
        Effect.NOT_REACHED,
    ),
    _fault("request_lost", API_CALLS, "请求在途中丢失", _MAYBE_SENT, Effect.LOSE_REQUEST),
    _fault("answer_lost", API_CALLS, "已受理但应答丢失", _MAYBE_SENT, Effect.LOSE_ANSWER),
    _fault("error_500_before", API_CALLS, "HTTP 500，未受理", _MAYBE_SENT, Effect.ERROR_BEFORE),
    _fault("error_500_after", API_CALLS, "HTTP 500，实际已受理", _MAYBE_SENT, Effect.ERROR_AFTER),
    _fault("garbled", API_CALLS, "应答被截断", _MAYBE_SENT, Effect.GARBLED_ANSWER),
    # The platform's own troubles.
    _fault("system_busy_-1", API_CALLS - {"token_service"}, "系统繁忙（-1），未受理", _MAYBE_SENT),
    _fault("system_busy_-1_after", SEND_CALLS, "系统繁忙（-1），实际已发送", _MAYBE_SENT),
    # Tokens.
    _fault(
        "token_rotated",
        WITH_TOKEN,
        "别的系统强制刷新了令牌（40001）",
        "The token is fetched anew and the same call succeeds, within one attempt.",
    ),
    _fault(
        "token_refused",
        WITH_TOKEN,
        "令牌有效却被拒一次（40001）",
        "The platform is asked again, at most one forced refresh follows, the same call succeeds.",
    ),
    # Limits.
    _fault(
        "quota_45009",
        SEND_CALLS,
        "当日额度用完（45009）",
        "The message waits until the next day in Shanghai.",
    ),
    _fault(
        "rate_45011",
        SEND_CALLS | LOGIN_CALLS,
        "调用过于频繁（45011）",
        "A message waits a minute; a login is tried again.",
    ),
    # The person.
    _fault(
        "refused_43101",
        frozenset({"subscribe_send", "subscribe_bizsend"}),
        "用户关闭了订阅（43101）",
        "The message is never sent; the person reads it in the mini program.",
    ),
    _fault(
        "unfollowed_43004",
        frozenset({"template_send"}),
        "用户取消关注（43004）",
        "The message is never sent on this road.",
    ),
    _fault("code_40029", LOGIN_CALLS, "登录凭证无效（40029）", "The app asks for a new code and signs in."),
    # Set-up.
    _fault(
        "ip_40164",
        API_CALLS - {"code2session", "token_service"},
        "服务器IP不在白名单（40164）",
        "Nothing is sent; the message waits and an operator is told.",
    ),
)
