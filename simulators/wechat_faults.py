"""What may go wrong at the simulated WeChat platform, and how business struck by it must end."""

from __future__ import annotations

from simulators.faults import Effect, Fault

NAME = "wechat"

TOKEN_CALLS = frozenset({"token", "stable_token"})
SEND_CALLS = frozenset({"template_send", "subscribe_send", "subscribe_bizsend"})
LOGIN_CALLS = frozenset({"code2session", "phone_number", "page_token"})
CHAT_CALLS = frozenset({"custom_send", "typing", "qrcode_create", "menu_create", "menu_get", "menu_delete"})
LIST_CALLS = frozenset({"template_list", "subscribe_template_list"})
WITH_TOKEN = SEND_CALLS | CHAT_CALLS | LIST_CALLS | {"phone_number", "jsapi_ticket", "urllink", "user_info"}
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
    _fault("system_busy_-1_after", SEND_CALLS | {"custom_send"}, "系统繁忙（-1），实际已发送", _MAYBE_SENT),
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
        SEND_CALLS | LOGIN_CALLS | {"custom_send"},
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
        API_CALLS - {"code2session", "page_token", "token_service"},
        "服务器IP不在白名单（40164）",
        "Nothing is sent; the message waits and an operator is told.",
    ),
)

CHAT_FAULTS: tuple[Fault, ...] = (
    # What is pushed to an account's server ("push" is the call, the person the key).
    _fault("push_repeated", frozenset({"push"}), "同一推送到达两次", "It is done once; the person sees one answer."),
    _fault(
        "push_answer_late",
        frozenset({"push"}),
        "公众号应答超过5秒，平台重推",
        "It is done once; the answer to the second attempt is shown.",
    ),
    _fault("push_delayed", frozenset({"push"}), "推送晚到30秒", "It is answered when it arrives, after newer ones."),
    _fault("push_forged", frozenset({"push"}), "外人伪造推送", "The forged one is refused; the real one is answered."),
    # The login of pages.
    _fault(
        "login_page_silent",
        frozenset({"authorize"}),
        "网页授权无响应",
        "The page asks for the login again when it is reloaded.",
        Effect.LOSE_REQUEST,
    ),
    _fault(
        "login_page_500",
        frozenset({"authorize"}),
        "网页授权HTTP 500",
        "The page asks for the login again when it is reloaded.",
        Effect.ERROR_BEFORE,
    ),
    _fault("code_used_40163", frozenset({"page_token"}), "授权码已被用过（40163）", "The page asks for a new code."),
    _fault("snapshot_user", frozenset({"page_token"}), "快照页虚拟用户", "Nobody is signed in; nothing can be paid."),
    # Customer messages.
    _fault("custom_45015", frozenset({"custom_send"}), "客服消息超过48小时（45015）", "It is not sent on this road."),
    _fault("custom_45047", frozenset({"custom_send"}), "客服消息条数用完（45047）", "It is not sent on this road."),
    # Template messages that are accepted and never shown.
    _fault(
        "template_user_block",
        frozenset({"template_send"}),
        "模板消息已受理但被用户屏蔽",
        "The event says so; the person reads it elsewhere.",
    ),
    _fault(
        "template_system_failed",
        frozenset({"template_send"}),
        "模板消息已受理但系统发送失败",
        "The event says so; the person reads it elsewhere.",
    ),
)
"""The faults of chats and page logins; a payment can be made without meeting them."""
