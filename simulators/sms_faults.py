"""What may go wrong at the simulated text message platform, and how business struck by it must end."""

from __future__ import annotations

from simulators.faults import Effect, Fault

NAME = "sms"
SEND = "send_sms"
STATISTICS, TEMPLATES = "send_status_statistics", "describe_template_list"  # an operator looks; never struck

_MAYBE_SENT = "Unknown; it is never sent again, and the person may read the same elsewhere."
_REFUSED = "It is not sent on this road; the person may read the same elsewhere."


def _fault(name: str, title_zh: str, ends: str, effect: Effect = Effect.SPECIFIC) -> Fault:
    return Fault(
        name=f"{NAME}.{name}",
        counterparty=NAME,
        calls=frozenset({SEND}),
        effect=effect,
        title_zh=title_zh,
        ends=ends,
    )


FAULTS: tuple[Fault, ...] = (
    # The line.
    _fault("not_reached", "连不上短信平台", "Nothing was sent; it is sent later.", Effect.NOT_REACHED),
    _fault("request_lost", "请求在途中丢失", _MAYBE_SENT, Effect.LOSE_REQUEST),
    _fault("answer_lost", "已受理但应答丢失", _MAYBE_SENT, Effect.LOSE_ANSWER),
    _fault("error_500_before", "HTTP 500，未受理", _MAYBE_SENT, Effect.ERROR_BEFORE),
    _fault("error_500_after", "HTTP 500，实际已受理", _MAYBE_SENT, Effect.ERROR_AFTER),
    _fault("garbled", "应答被截断", _MAYBE_SENT, Effect.GARBLED_ANSWER),
    _fault("slow", "应答很慢", "It counts when the answer comes in time; otherwise it is unknown and not sent again."),
    # The platform.
    _fault("internal_error", "平台内部错误，未受理", _MAYBE_SENT),
    _fault("timeout_after", "平台说下发超时，实际已发出", _MAYBE_SENT),
    _fault("rate", "接口调用过于频繁", "Nothing was sent; it is sent later."),
    _fault("arrears", "欠费停服", "Nothing is sent; an operator is told."),
    # The phone.
    _fault("daily_limit", "该手机号当日条数超限", "Nothing was sent; it is sent the next day at 00:05 in Shanghai."),
    _fault("thirty_second_limit", "该手机号30秒内条数超限", "Nothing was sent; it is sent later or not at all."),
    _fault("blacklist", "手机号在免打扰名单", _REFUSED),
)
